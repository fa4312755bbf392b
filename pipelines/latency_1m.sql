-- What players measured: distance to the live edge, buffer level, throughput.
-- Reads:    silver.player_events.
-- Grain:    one minute by app, player, device, OS, browser, country, ISP, CDN, content and stream type.
-- Lateness: windows are computed again when late events change them.
-- Rolls up: 5 minutes, 1 hour, 1 day
-- Columns:
--   live_latency_ms_sum: sum of distances to the live edge while playing (ms)
--   live_latency_count: samples of distances to the live edge while playing (count)
--   live_latency_sketch: distances to the live edge while playing, ms (sketch)
--   buffer_ms_sum: sum of buffer levels (ms)
--   buffer_count: samples of buffer levels (count)
--   buffer_sketch: buffer levels, ms (sketch)
--   throughput_kbps_sum: sum of throughputs that players measured (kbps)
--   throughput_count: samples of throughputs that players measured (count)
--   throughput_sketch: throughputs that players measured, kbps (sketch)
SELECT window.start AS window_start, window.end AS window_end, app_name, app_version, player_name, player_version,
       device_type, os, browser, country, isp, cdn, content_id, stream_type, live_latency_ms_sum, live_latency_count,
       live_latency_sketch, buffer_ms_sum, buffer_count, buffer_sketch, throughput_kbps_sum, throughput_count,
       throughput_sketch
FROM (
  SELECT tumble(interval '1 minute') AS window,
         app_name, app_version, player_name, player_version, device_type, os, browser, country, isp, cdn, content_id,
         stream_type,
         coalesce(sum(live_latency_ms), 0) AS live_latency_ms_sum,
         count(live_latency_ms) AS live_latency_count,
         sketch_build(live_latency_ms) AS live_latency_sketch,
         coalesce(sum(buffer_ms), 0) AS buffer_ms_sum,
         count(buffer_ms) AS buffer_count,
         sketch_build(buffer_ms) AS buffer_sketch,
         coalesce(sum(throughput_kbps), 0) AS throughput_kbps_sum,
         count(throughput_kbps) AS throughput_count,
         sketch_build(throughput_kbps) AS throughput_sketch
  FROM (
    SELECT app_name, app_version, player_name, player_version, device_type, os, browser,
           country, isp, cdn, content_id, stream_type,
           CASE WHEN live_latency_ms >= -1000 AND coalesce(state, 'playing') = 'playing' THEN live_latency_ms END AS live_latency_ms,
           coalesce(buffer_ms, least(buffer_video_ms, buffer_audio_ms)) AS buffer_ms,
           throughput_bps / 1000 AS throughput_kbps
    FROM silver.player_events
    WHERE live_latency_ms IS NOT NULL OR buffer_ms IS NOT NULL OR buffer_video_ms IS NOT NULL
       OR buffer_audio_ms IS NOT NULL OR throughput_bps IS NOT NULL
  ) AS samples
  GROUP BY window, app_name, app_version, player_name, player_version, device_type, os, browser, country, isp, cdn,
           content_id, stream_type
) AS minutes

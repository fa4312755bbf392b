-- Who is watching: concurrency by content.
-- Reads:    silver.playback_intervals.
-- Grain:    one minute by content, stream type and country.
-- Lateness: windows are computed again when late events change them.
-- Rolls up: 5 minutes, 1 hour, 1 day
-- Columns:
--   active_ms: time that sessions were playing, rebuffering or seeking, or had just gone silent (ms)
--   concurrent_avg: active_ms over the window's length: the average concurrency (ratio)
--   concurrent_peak: most sessions active at one second; does not add over dimensions (peak)
--   concurrent_paused_peak: most sessions paused at one second (peak)
--   paused_ms: time that sessions were paused (ms)
--   sessions_in_window: distinct sessions that overlap the window, not the concurrency (distinct)
--   viewers: distinct users, else devices, that overlap the window (distinct)
--   viewers_sketch: the same, for counts over more than one row: distinct_count(distinct_merge(...)) (distinct sketch)
SELECT window.start AS window_start, window.end AS window_end, content_id, stream_type, country, active_ms,
       concurrent_avg, concurrent_peak, concurrent_paused_peak, paused_ms, sessions_in_window, viewers,
       viewers_sketch
FROM (
  SELECT tumble(interval '1 minute') AS window,
         content_id, stream_type, country,
         coalesce(sum(duration_ms) FILTER (WHERE state IN ('playing', 'rebuffering', 'seeking', 'ad', 'silent')), 0) AS active_ms,
         coalesce(sum(duration_ms) FILTER (WHERE state IN ('playing', 'rebuffering', 'seeking', 'ad', 'silent')), 0) / 60000.0 AS concurrent_avg,
         coalesce(concurrent_peak(CAST(interval_start AS BIGINT), CAST(interval_end AS BIGINT))
                  FILTER (WHERE state IN ('playing', 'rebuffering', 'seeking', 'ad', 'silent')), 0) AS concurrent_peak,
         coalesce(concurrent_peak(CAST(interval_start AS BIGINT), CAST(interval_end AS BIGINT))
                  FILTER (WHERE state = 'paused'), 0) AS concurrent_paused_peak,
         coalesce(sum(duration_ms) FILTER (WHERE state = 'paused'), 0) AS paused_ms,
         count(DISTINCT session_id) AS sessions_in_window,
         count(DISTINCT coalesce(user_id, device_id, session_id)) AS viewers,
         -- + 0 makes a copy: a worker of Arroyo 0.16 crashes at its end if it still holds what a function returned.
         distinct_build(text_hash(coalesce(user_id, device_id, session_id)) + 0) AS viewers_sketch
  FROM silver.playback_intervals
  GROUP BY window, content_id, stream_type, country
) AS minutes

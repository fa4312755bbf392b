-- Startup time by the POP that served the first segment: player events joined to CDN requests.
-- Reads:    silver.player_events (first frames), silver.cdn_requests (by request id, left join: no
--           player event is lost, the match rate is kept; without traffic between the CDN's own servers).
-- Grain:    one minute of the first frame by CDN, POP, cache result, country, ISP, content.
-- Lateness: CDN logs come up to a day late; the windows that they reach are computed again.
-- Reach: 5 minutes
--           (the player's clock and the CDN's may differ by as much and still be joined)
-- Columns:
--   first_frames: first frames (count)
--   matched: first frames whose request the CDN logged (count)
--   startup_ms_sum: sum of reported startup times (ms)
--   startup_count: first frames that report one (count)
--   ttfb_ms_sum: sum of the CDN's times to first byte of the matched requests (ms)
--   ttfb_count: matched requests whose time to first byte is known (count)
SELECT window.start AS window_start, window.end AS window_end, cdn, pop, result_type, country, isp, content_id,
       first_frames, matched, startup_ms_sum, startup_count, ttfb_ms_sum, ttfb_count
FROM (
  SELECT tumble(interval '1 minute') AS window,
         coalesce(requests.cdn, frames.cdn) AS cdn, requests.pop AS pop, requests.result_type AS result_type,
         coalesce(frames.country, requests.country) AS country, coalesce(frames.isp, requests.isp) AS isp,
         frames.content_id AS content_id,
         count(*) AS first_frames,
         count(requests.request_id) AS matched,
         coalesce(sum(frames.startup_ms), 0) AS startup_ms_sum,
         count(frames.startup_ms) AS startup_count,
         coalesce(sum(requests.ttfb_ms), 0) AS ttfb_ms_sum,
         count(requests.ttfb_ms) AS ttfb_count
  FROM (SELECT request_id, event_ts, cdn, country, isp, content_id, startup_ms FROM silver.player_events
        WHERE event_type = 'playback_start' AND startup_ms BETWEEN 0 AND 600000) AS frames
  LEFT JOIN silver.cdn_requests AS requests ON requests.request_id = frames.request_id AND requests.sample_weight_milli > 0
       AND requests.event_ts >= frames.event_ts - interval '5 minutes'
       AND requests.event_ts <= frames.event_ts + interval '5 minutes'
  GROUP BY window, coalesce(requests.cdn, frames.cdn), requests.pop, requests.result_type,
           coalesce(frames.country, requests.country), coalesce(frames.isp, requests.isp), frames.content_id
) AS minutes

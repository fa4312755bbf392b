-- Who is watching: concurrency by content.
-- Reads:    silver.playback_intervals.
-- Grain:    one minute by content, stream type and country.
-- Lateness: windows are computed again when late events change them.
-- Columns:
--   active_ms: time that sessions were playing, rebuffering or seeking; divided by 60000 it is the average concurrency (ms)
--   paused_ms: time that sessions were paused (ms)
--   sessions_in_window: distinct sessions that overlap the window, not the concurrency (count)
--   viewers: distinct clients that overlap the window (count)
SELECT window.start AS window_start, window.end AS window_end, content_id, stream_type, country,
       active_ms, active_ms / 60000.0 AS concurrent_avg, paused_ms, sessions_in_window, viewers
FROM (
  SELECT tumble(interval '1 minute') AS window, content_id, stream_type, country,
         sum(CASE WHEN state IN ('playing', 'rebuffering', 'seeking') THEN duration_ms ELSE 0 END) AS active_ms,
         sum(CASE WHEN state = 'paused' THEN duration_ms ELSE 0 END) AS paused_ms,
         count(DISTINCT session_id) AS sessions_in_window,
         count(DISTINCT client) AS viewers
  FROM silver.playback_intervals
  GROUP BY window, content_id, stream_type, country
) AS minutes

-- What viewers got, minute by minute: attempts, startup, stalls, playing time, bitrate, failures.
-- Reads:    silver.playback_sessions (by start), silver.failed_sessions (by failure), silver.playback_intervals.
-- Grain:    one minute by app, device, OS, country, ISP, CDN, content and stream type.
-- Lateness: windows are computed again when late events change them.
-- Columns:
--   attempts: sessions whose intent to play came in the window (count)
--   plays: of those attempts, how many showed a frame (count)
--   open_attempts: of those attempts, how many are still starting (count)
--   exits_before_start: of those attempts, left before the first frame without a fatal error (count)
--   start_failures: of those attempts, failed before the first frame (count)
--   startup_ms_sum: sum of startup times of those plays (ms)
--   startup_count: plays whose startup time is known (count)
--   playback_failures: plays that an unrecovered fatal error ended in the window (count)
--   fatal_errors: sessions that a fatal error ended in the window, before or after the first frame (count)
--   playing_ms: time that frames moved (ms)
--   stall_ms: rebuffering, seek-induced excluded (ms)
--   stall_count: rebufferings that began in the window, seek-induced excluded (count)
--   stall_seek_ms: seek-induced rebuffering (ms)
--   seek_wait_ms: waiting for a seek (ms)
--   startup_wait_ms: time in state starting (ms)
--   paused_ms: paused (ms)
--   shown_bits: bitrate x media time; divided by bitrate_known_ms it is the average bitrate in kbps (bit)
--   bitrate_known_ms: media time whose bitrate is known (ms)
--   active_sessions: distinct sessions that did anything in the window (count)
SELECT window.start AS window_start, window.end AS window_end,
       app_name, app_version, device_type, os, country, isp, cdn, content_id, stream_type,
       attempts, plays, open_attempts, exits_before_start, start_failures, startup_ms_sum, startup_count,
       playback_failures, fatal_errors, playing_ms, stall_ms, stall_count, stall_seek_ms, seek_wait_ms,
       startup_wait_ms, paused_ms, shown_bits, bitrate_known_ms, active_sessions
FROM (
  SELECT tumble(interval '1 minute') AS window,
         app_name, app_version, device_type, os, country, isp, cdn, content_id, stream_type,
         sum(attempts) AS attempts, sum(plays) AS plays, sum(open_attempts) AS open_attempts,
         sum(exits_before_start) AS exits_before_start, sum(start_failures) AS start_failures,
         sum(startup_ms) AS startup_ms_sum, sum(startup_count) AS startup_count,
         sum(playback_failures) AS playback_failures, sum(fatal_errors) AS fatal_errors,
         sum(playing_ms) AS playing_ms, sum(stall_ms) AS stall_ms, sum(stall_count) AS stall_count,
         sum(stall_seek_ms) AS stall_seek_ms, sum(seek_wait_ms) AS seek_wait_ms,
         sum(startup_wait_ms) AS startup_wait_ms, sum(paused_ms) AS paused_ms,
         sum(shown_bits) AS shown_bits, sum(bitrate_known_ms) AS bitrate_known_ms,
         count(DISTINCT active_session) AS active_sessions
  FROM (
    SELECT app_name, app_version, device_type, os, country, isp, cdn, content_id, stream_type,
           attempts, plays,
           CASE WHEN outcome = 'open' THEN attempts ELSE 0 END AS open_attempts,
           exits_before_start, start_failures,
           coalesce(startup_ms, 0) AS startup_ms,
           CASE WHEN startup_ms IS NULL THEN 0 ELSE 1 END AS startup_count,
           0 AS playback_failures, 0 AS fatal_errors,
           0 AS playing_ms, 0 AS stall_ms, 0 AS stall_count, 0 AS stall_seek_ms, 0 AS seek_wait_ms,
           0 AS startup_wait_ms, 0 AS paused_ms, 0 AS shown_bits, 0 AS bitrate_known_ms,
           session_id AS active_session
    FROM silver.playback_sessions
    UNION ALL
    SELECT app_name, app_version, device_type, os, country, isp, cdn, content_id, stream_type,
           0, 0, 0, 0, 0, 0, 0,
           playback_failures, fatal_errors,
           0, 0, 0, 0, 0, 0, 0, 0, 0,
           session_id
    FROM silver.failed_sessions
    UNION ALL
    SELECT app_name, app_version, device_type, os, country, isp, cdn, content_id, stream_type,
           0, 0, 0, 0, 0, 0, 0, 0, 0,
           CASE WHEN state = 'playing' THEN duration_ms ELSE 0 END,
           CASE WHEN state = 'rebuffering' AND stall_cause = 'connection' THEN duration_ms ELSE 0 END,
           CASE WHEN state = 'rebuffering' AND stall_cause = 'connection' THEN starts ELSE 0 END,
           CASE WHEN state = 'rebuffering' AND stall_cause = 'seek_induced' THEN duration_ms ELSE 0 END,
           CASE WHEN state = 'seeking' THEN duration_ms ELSE 0 END,
           CASE WHEN state = 'starting' THEN duration_ms ELSE 0 END,
           CASE WHEN state = 'paused' THEN duration_ms ELSE 0 END,
           shown_bits, bitrate_known_ms,
           session_id
    FROM silver.playback_intervals
  ) AS facts
  GROUP BY window, app_name, app_version, device_type, os, country, isp, cdn, content_id, stream_type
) AS minutes

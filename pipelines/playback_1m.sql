-- What viewers got, minute by minute: attempts, startup, stalls, playing time, bitrate, failures.
-- Reads:    silver.playback_sessions (by start), silver.failed_sessions (by failure), silver.playback_intervals.
-- Grain:    one minute by app, player, device, OS, browser, country, ISP, CDN, content and stream type.
-- Lateness: windows are computed again when late events change them.
-- Rolls up: 5 minutes, 1 hour, 1 day
-- Columns:
--   attempts: sessions whose intent to play came in the window (count)
--   plays: of those attempts, how many showed a frame (count)
--   content_plays: of those attempts, how many showed a frame of the content itself (count)
--   open_attempts: of those attempts, how many are still starting (count)
--   exits_before_start: of those attempts, left before the first frame without a fatal error (count)
--   early_exits: of those exits, within 1 s of the intent (count)
--   start_failures: of those attempts, failed before the first frame (count)
--   start_failures_business: of those failures, by decision of the service: entitlement, geo-block and the like (count)
--   startup_ms_sum: sum of startup times of those plays (ms)
--   startup_count: plays whose startup time is known (count)
--   startup_sketch: startup times for percentiles: sketch_quantile(sketch_merge(...), q) (sketch)
--   startup_le_500: startups of at most 500 ms (count)
--   startup_le_1000: startups of at most 1000 ms (count)
--   startup_le_2000: startups of at most 2000 ms (count)
--   startup_le_3000: startups of at most 3000 ms (count)
--   startup_le_4000: startups of at most 4000 ms (count)
--   startup_le_6000: startups of at most 6000 ms (count)
--   startup_le_8000: startups of at most 8000 ms (count)
--   startup_le_10000: startups of at most 10000 ms (count)
--   startup_le_15000: startups of at most 15000 ms (count)
--   startup_le_20000: startups of at most 20000 ms (count)
--   startup_le_30000: startups of at most 30000 ms (count)
--   startup_le_60000: startups of at most 60000 ms (count)
--   startup_gt_60000: startups of more than 60 s (count)
--   content_startup_ms_sum: sum of startup times to the first frame of the content (ms)
--   content_startup_count: plays whose content startup time is known (count)
--   exit_wait_ms_sum: sum of waiting times at exits before start (ms)
--   exit_wait_sketch: waiting times at exits before start (sketch)
--   start_bitrate_bps_sum: sum of first bitrates shown (bit/s)
--   start_bitrate_count: plays whose first bitrate is known (count)
--   preloaded_plays: plays that had been loaded before the intent (count)
--   playback_failures: plays that an unrecovered fatal error ended in the window (count)
--   fatal_errors: sessions that a fatal error ended in the window, before or after the first frame (count)
--   playing_ms: time that frames moved (ms)
--   media_ms: playing time x playback rate (ms)
--   stall_ms: rebuffering, seek-induced excluded (ms)
--   stall_count: rebufferings that began in the window, seek-induced excluded (count)
--   stall_conn_ms: of stall_ms, connection-induced (ms)
--   stall_conn_count: of stall_count, connection-induced (count)
--   stall_ad_ms: of stall_ms, within 1 s of an advertisement's boundary (ms)
--   stall_decoder_ms: of stall_ms, with 5 s or more in every buffer (ms)
--   stall_switch_ms: of stall_ms, within 1 s of a change of rendition or rate (ms)
--   stall_end_ms: of stall_ms, within 1 s of the natural end (ms)
--   stall_seek_ms: seek-induced rebuffering (ms)
--   stall_length_ms_sum: sum of the lengths of stalls that ended in the window (ms)
--   stall_length_count: stalls that ended in the window (count)
--   stall_length_sketch: lengths of stalls that ended in the window (sketch)
--   seek_wait_ms: waiting for a seek (ms)
--   startup_wait_ms: time in state starting (ms)
--   paused_ms: paused (ms)
--   background_ms: hidden by the user (ms)
--   waiting_ms: state waiting, which CTA-5004-B does not define (ms)
--   ad_ms: advertisements playing (ms)
--   shown_bits: bitrate x media time; divided by bitrate_known_ms it is the average bitrate in kbps (bit)
--   bitrate_known_ms: media time whose bitrate is known (ms)
--   shown_wall_bits: bitrate x playing time (bit)
--   bitrate_known_wall_ms: playing time whose bitrate is known (ms)
--   height_px_ms: picture height x playing time (px ms)
--   height_known_ms: playing time whose picture height is known (ms)
--   switches_up: changes to a higher shown bitrate (count)
--   switches_down: changes to a lower shown bitrate (count)
--   active_sessions: distinct sessions that did anything in the window; not a sum (distinct)
SELECT window.start AS window_start, window.end AS window_end, app_name, app_version, player_name, player_version,
       device_type, os, browser, country, isp, cdn, content_id, stream_type, attempts, plays, content_plays,
       open_attempts, exits_before_start, early_exits, start_failures, start_failures_business, startup_ms_sum,
       startup_count, startup_sketch, startup_le_500, startup_le_1000, startup_le_2000, startup_le_3000,
       startup_le_4000, startup_le_6000, startup_le_8000, startup_le_10000, startup_le_15000, startup_le_20000,
       startup_le_30000, startup_le_60000, startup_gt_60000, content_startup_ms_sum, content_startup_count,
       exit_wait_ms_sum, exit_wait_sketch, start_bitrate_bps_sum, start_bitrate_count, preloaded_plays,
       playback_failures, fatal_errors, playing_ms, media_ms, stall_ms, stall_count, stall_conn_ms, stall_conn_count,
       stall_ad_ms, stall_decoder_ms, stall_switch_ms, stall_end_ms, stall_seek_ms, stall_length_ms_sum,
       stall_length_count, stall_length_sketch, seek_wait_ms, startup_wait_ms, paused_ms, background_ms, waiting_ms,
       ad_ms, shown_bits, bitrate_known_ms, shown_wall_bits, bitrate_known_wall_ms, height_px_ms, height_known_ms,
       switches_up, switches_down, active_sessions
FROM (
  SELECT tumble(interval '1 minute') AS window,
         app_name, app_version, player_name, player_version, device_type, os, browser, country, isp, cdn, content_id,
         stream_type,
         coalesce(sum(attempts), 0) AS attempts,
         coalesce(sum(plays), 0) AS plays,
         coalesce(sum(content_plays), 0) AS content_plays,
         coalesce(sum(attempts) FILTER (WHERE outcome = 'open'), 0) AS open_attempts,
         coalesce(sum(exits_before_start), 0) AS exits_before_start,
         coalesce(sum(early_exits), 0) AS early_exits,
         coalesce(sum(start_failures), 0) AS start_failures,
         coalesce(sum(start_failures) FILTER (WHERE error_class = 'business'), 0) AS start_failures_business,
         coalesce(sum(startup_ms), 0) AS startup_ms_sum,
         count(startup_ms) AS startup_count,
         sketch_build(startup_ms) AS startup_sketch,
         count(CASE WHEN startup_ms <= 500 THEN 1 END) AS startup_le_500,
         count(CASE WHEN startup_ms <= 1000 THEN 1 END) AS startup_le_1000,
         count(CASE WHEN startup_ms <= 2000 THEN 1 END) AS startup_le_2000,
         count(CASE WHEN startup_ms <= 3000 THEN 1 END) AS startup_le_3000,
         count(CASE WHEN startup_ms <= 4000 THEN 1 END) AS startup_le_4000,
         count(CASE WHEN startup_ms <= 6000 THEN 1 END) AS startup_le_6000,
         count(CASE WHEN startup_ms <= 8000 THEN 1 END) AS startup_le_8000,
         count(CASE WHEN startup_ms <= 10000 THEN 1 END) AS startup_le_10000,
         count(CASE WHEN startup_ms <= 15000 THEN 1 END) AS startup_le_15000,
         count(CASE WHEN startup_ms <= 20000 THEN 1 END) AS startup_le_20000,
         count(CASE WHEN startup_ms <= 30000 THEN 1 END) AS startup_le_30000,
         count(CASE WHEN startup_ms <= 60000 THEN 1 END) AS startup_le_60000,
         count(CASE WHEN startup_ms > 60000 THEN 1 END) AS startup_gt_60000,
         coalesce(sum(content_startup_ms), 0) AS content_startup_ms_sum,
         count(content_startup_ms) AS content_startup_count,
         coalesce(sum(exit_wait_ms), 0) AS exit_wait_ms_sum,
         sketch_build(exit_wait_ms) AS exit_wait_sketch,
         coalesce(sum(start_bitrate_bps), 0) AS start_bitrate_bps_sum,
         count(start_bitrate_bps) AS start_bitrate_count,
         coalesce(sum(plays) FILTER (WHERE preloaded = 1), 0) AS preloaded_plays,
         coalesce(sum(playback_failures), 0) AS playback_failures,
         coalesce(sum(fatal_errors), 0) AS fatal_errors,
         coalesce(sum(duration_ms) FILTER (WHERE state = 'playing'), 0) AS playing_ms,
         coalesce(sum(media_ms), 0) AS media_ms,
         coalesce(sum(duration_ms) FILTER (WHERE state = 'rebuffering' AND stall_cause <> 'seek_induced'), 0) AS stall_ms,
         coalesce(sum(starts) FILTER (WHERE state = 'rebuffering' AND stall_cause <> 'seek_induced'), 0) AS stall_count,
         coalesce(sum(duration_ms) FILTER (WHERE stall_cause = 'connection'), 0) AS stall_conn_ms,
         coalesce(sum(starts) FILTER (WHERE stall_cause = 'connection'), 0) AS stall_conn_count,
         coalesce(sum(duration_ms) FILTER (WHERE stall_cause = 'ad_boundary'), 0) AS stall_ad_ms,
         coalesce(sum(duration_ms) FILTER (WHERE stall_cause = 'decoder'), 0) AS stall_decoder_ms,
         coalesce(sum(duration_ms) FILTER (WHERE stall_cause = 'rendition_switch'), 0) AS stall_switch_ms,
         coalesce(sum(duration_ms) FILTER (WHERE stall_cause = 'natural_end'), 0) AS stall_end_ms,
         coalesce(sum(duration_ms) FILTER (WHERE stall_cause = 'seek_induced'), 0) AS stall_seek_ms,
         coalesce(sum(stall_length_ms), 0) AS stall_length_ms_sum,
         count(stall_length_ms) AS stall_length_count,
         sketch_build(stall_length_ms) AS stall_length_sketch,
         coalesce(sum(duration_ms) FILTER (WHERE state = 'seeking'), 0) AS seek_wait_ms,
         coalesce(sum(duration_ms) FILTER (WHERE state = 'starting'), 0) AS startup_wait_ms,
         coalesce(sum(duration_ms) FILTER (WHERE state = 'paused'), 0) AS paused_ms,
         coalesce(sum(duration_ms) FILTER (WHERE state = 'background'), 0) AS background_ms,
         coalesce(sum(duration_ms) FILTER (WHERE state = 'waiting'), 0) AS waiting_ms,
         coalesce(sum(duration_ms) FILTER (WHERE state = 'ad'), 0) AS ad_ms,
         coalesce(sum(shown_bits), 0) AS shown_bits,
         coalesce(sum(bitrate_known_ms), 0) AS bitrate_known_ms,
         coalesce(sum(shown_wall_bits), 0) AS shown_wall_bits,
         coalesce(sum(bitrate_known_wall_ms), 0) AS bitrate_known_wall_ms,
         coalesce(sum(height_px_ms), 0) AS height_px_ms,
         coalesce(sum(height_known_ms), 0) AS height_known_ms,
         coalesce(sum(switches_up), 0) AS switches_up,
         coalesce(sum(switches_down), 0) AS switches_down,
         count(DISTINCT session_id) AS active_sessions
  FROM (
    SELECT app_name, app_version, player_name, player_version, device_type, os, browser, country, isp, cdn,
           content_id, stream_type, attempts, plays, content_plays, outcome, exits_before_start, early_exits,
           start_failures, error_class, startup_ms, content_startup_ms, exit_wait_ms, start_bitrate_bps, preloaded,
           0 AS playback_failures, 0 AS fatal_errors, CAST(NULL AS TEXT) AS state, CAST(NULL AS TEXT) AS stall_cause,
           0 AS duration_ms, 0 AS starts, 0 AS media_ms, 0 AS shown_bits, 0 AS bitrate_known_ms, 0 AS shown_wall_bits,
           0 AS bitrate_known_wall_ms, 0 AS height_px_ms, 0 AS height_known_ms, 0 AS switches_up, 0 AS switches_down,
           CAST(NULL AS BIGINT) AS stall_length_ms, session_id
    FROM silver.playback_sessions
    UNION ALL
    SELECT app_name, app_version, player_name, player_version, device_type, os, browser, country, isp, cdn,
           content_id, stream_type, 0 AS attempts, 0 AS plays, 0 AS content_plays, NULL AS outcome,
           0 AS exits_before_start, 0 AS early_exits, 0 AS start_failures, NULL AS error_class, NULL AS startup_ms,
           NULL AS content_startup_ms, NULL AS exit_wait_ms, NULL AS start_bitrate_bps, 0 AS preloaded,
           playback_failures, fatal_errors, NULL AS state, NULL AS stall_cause, 0 AS duration_ms, 0 AS starts,
           0 AS media_ms, 0 AS shown_bits, 0 AS bitrate_known_ms, 0 AS shown_wall_bits, 0 AS bitrate_known_wall_ms,
           0 AS height_px_ms, 0 AS height_known_ms, 0 AS switches_up, 0 AS switches_down, NULL AS stall_length_ms,
           session_id
    FROM silver.failed_sessions
    UNION ALL
    SELECT app_name, app_version, player_name, player_version, device_type, os, browser, country, isp, cdn,
           content_id, stream_type, 0 AS attempts, 0 AS plays, 0 AS content_plays, NULL AS outcome,
           0 AS exits_before_start, 0 AS early_exits, 0 AS start_failures, NULL AS error_class, NULL AS startup_ms,
           NULL AS content_startup_ms, NULL AS exit_wait_ms, NULL AS start_bitrate_bps, 0 AS preloaded,
           0 AS playback_failures, 0 AS fatal_errors, state, stall_cause, duration_ms, starts, media_ms, shown_bits,
           bitrate_known_ms, shown_wall_bits, bitrate_known_wall_ms, height_px_ms, height_known_ms, switches_up,
           switches_down, stall_length_ms, session_id
    FROM silver.playback_intervals
    WHERE state <> 'silent'
  ) AS facts
  GROUP BY window, app_name, app_version, player_name, player_version, device_type, os, browser, country, isp, cdn,
           content_id, stream_type
) AS minutes

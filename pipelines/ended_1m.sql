-- How sessions ended: failures, completion, pauses, score; each counts where it ended.
-- Reads:    silver.ended_sessions (by end).
-- Grain:    one minute by app, player, device, OS, browser, country, ISP, CDN, content and stream type.
-- Lateness: windows are computed again when late events change them.
-- Rolls up: 5 minutes, 1 hour, 1 day
-- Columns:
--   ended_sessions: sessions that ended in the window (count)
--   ended_plays: of those, how many had shown a frame (count)
--   playback_failures: plays that an unrecovered fatal error ended (count)
--   playback_failures_business: of those, by decision of the service (count)
--   fatal_sessions: sessions that a fatal error ended, before or after the first frame (count)
--   errors: error events of those sessions (count)
--   warnings: errors that broke nothing (count)
--   recovered_errors: errors after which playback went on (count)
--   sessions_with_stall: plays with at least one rebuffering (count)
--   abandoned_in_stall: sessions that ended while rebuffering (count)
--   finished_plays: plays that reached the natural end (count)
--   deliberate_pause_plays: plays with a deliberate pause (count)
--   paused_then_finished: of those, finished (count)
--   finished_without_pause: finished without a deliberate pause (count)
--   quartile_known: plays of known length, on demand (count)
--   quartile_25: of those, played through 25 % (count)
--   quartile_50: of those, played through 50 % (count)
--   quartile_75: of those, played through 75 % (count)
--   quartile_100: of those, played through 100 % (count)
--   covered_ms: unique media played, where the length is known (ms)
--   covered_duration_ms: length of those assets (ms)
--   completion_ppm_sum: sum of completion ratios, millionths, so that the order of rows cannot show (ppm)
--   completion_count: plays whose completion is known (count)
--   watched_ms: wall time from request to pause, end or failure, CTA-2066 (ms)
--   ended_playing_ms: playing time of the sessions that ended (ms)
--   ended_stall_ms: stall time of the sessions that ended (ms)
--   ended_startup_wait_ms: startup waiting of the sessions that ended (ms)
--   audio_switches: changes of the audio bitrate (count)
--   dropped_frames: frames dropped, where the frame rate is known (count)
--   expected_frames: playing time x frame rate (count)
--   upscale_ppm_ms: upscaling x playing time, millionths x ms (sum)
--   upscale_known_ms: playing time whose upscaling is known (ms)
--   top_bits: highest bitrate allowed x media time whose bitrate is known (bit)
--   top_shown_bits: bitrate shown x the same time (bit)
--   score_sum: sum of scores (points)
--   score_count: sessions with a score (count)
--   score_sketch: scores, rounded (sketch)
--   good_sessions: sessions that met every threshold of a good one (count)
--   loss_availability_sum: points lost to availability (points)
--   loss_startup_sum: points lost to startup (points)
--   loss_stall_time_sum: points lost to stall time (points)
--   loss_interruptions_sum: points lost to interruptions (points)
--   loss_picture_sum: points lost to picture (points)
--   anomalies: reported lengths beyond the sanity bounds (count)
--   lost_reports: gaps in sequence numbers (count)
SELECT window.start AS window_start, window.end AS window_end, app_name, app_version, player_name, player_version,
       device_type, os, browser, country, isp, cdn, content_id, stream_type, ended_sessions, ended_plays,
       playback_failures, playback_failures_business, fatal_sessions, errors, warnings, recovered_errors,
       sessions_with_stall, abandoned_in_stall, finished_plays, deliberate_pause_plays, paused_then_finished,
       finished_without_pause, quartile_known, quartile_25, quartile_50, quartile_75, quartile_100, covered_ms,
       covered_duration_ms, completion_ppm_sum, completion_count, watched_ms, ended_playing_ms, ended_stall_ms,
       ended_startup_wait_ms, audio_switches, dropped_frames, expected_frames, upscale_ppm_ms, upscale_known_ms,
       top_bits, top_shown_bits, score_sum, score_count, score_sketch, good_sessions, loss_availability_sum,
       loss_startup_sum, loss_stall_time_sum, loss_interruptions_sum, loss_picture_sum, anomalies, lost_reports
FROM (
  SELECT tumble(interval '1 minute') AS window,
         app_name, app_version, player_name, player_version, device_type, os, browser, country, isp, cdn, content_id,
         stream_type,
         count(*) AS ended_sessions,
         coalesce(sum(plays), 0) AS ended_plays,
         coalesce(sum(playback_failures), 0) AS playback_failures,
         coalesce(sum(playback_failures) FILTER (WHERE error_class = 'business'), 0) AS playback_failures_business,
         coalesce(sum(fatal_errors), 0) AS fatal_sessions,
         coalesce(sum(errors), 0) AS errors,
         coalesce(sum(warnings), 0) AS warnings,
         coalesce(sum(recovered_errors), 0) AS recovered_errors,
         count(CASE WHEN plays = 1 AND stall_count > 0 THEN 1 END) AS sessions_with_stall,
         coalesce(sum(abandoned_in_stall), 0) AS abandoned_in_stall,
         coalesce(sum(finished), 0) AS finished_plays,
         count(CASE WHEN plays = 1 AND deliberate_pauses > 0 THEN 1 END) AS deliberate_pause_plays,
         count(CASE WHEN plays = 1 AND deliberate_pauses > 0 AND finished = 1 THEN 1 END) AS paused_then_finished,
         count(CASE WHEN plays = 1 AND deliberate_pauses = 0 AND finished = 1 THEN 1 END) AS finished_without_pause,
         count(quartile) AS quartile_known,
         count(CASE WHEN quartile >= 25 THEN 1 END) AS quartile_25,
         count(CASE WHEN quartile >= 50 THEN 1 END) AS quartile_50,
         count(CASE WHEN quartile >= 75 THEN 1 END) AS quartile_75,
         count(CASE WHEN quartile >= 100 THEN 1 END) AS quartile_100,
         coalesce(sum(covered_ms) FILTER (WHERE plays = 1 AND duration_ms > 0 AND quartile IS NOT NULL), 0) AS covered_ms,
         coalesce(sum(duration_ms) FILTER (WHERE plays = 1 AND duration_ms > 0 AND quartile IS NOT NULL), 0) AS covered_duration_ms,
         coalesce(sum(covered_ms * 1000000 / duration_ms) FILTER (WHERE plays = 1 AND duration_ms > 0 AND quartile IS NOT NULL), 0) AS completion_ppm_sum,
         count(CASE WHEN plays = 1 AND duration_ms > 0 AND quartile IS NOT NULL THEN 1 END) AS completion_count,
         coalesce(sum(watched_ms), 0) AS watched_ms,
         coalesce(sum(playing_ms), 0) AS ended_playing_ms,
         coalesce(sum(stall_ms), 0) AS ended_stall_ms,
         coalesce(sum(startup_wait_ms), 0) AS ended_startup_wait_ms,
         coalesce(sum(audio_switches), 0) AS audio_switches,
         coalesce(sum(dropped_frames) FILTER (WHERE expected_frames > 0), 0) AS dropped_frames,
         coalesce(sum(expected_frames), 0) AS expected_frames,
         coalesce(sum(upscale_ppm_ms), 0) AS upscale_ppm_ms,
         coalesce(sum(upscale_known_ms), 0) AS upscale_known_ms,
         coalesce(sum(top_bitrate_bps * bitrate_known_ms / 1000), 0) AS top_bits,
         coalesce(sum(shown_bits) FILTER (WHERE top_bitrate_bps IS NOT NULL), 0) AS top_shown_bits,
         coalesce(sum(score), 0) AS score_sum,
         count(score) AS score_count,
         sketch_build(CAST(round(score) AS BIGINT)) AS score_sketch,
         count(CASE WHEN is_good THEN 1 END) AS good_sessions,
         coalesce(sum(loss_availability), 0) AS loss_availability_sum,
         coalesce(sum(loss_startup), 0) AS loss_startup_sum,
         coalesce(sum(loss_stall_time), 0) AS loss_stall_time_sum,
         coalesce(sum(loss_interruptions), 0) AS loss_interruptions_sum,
         coalesce(sum(loss_picture), 0) AS loss_picture_sum,
         coalesce(sum(anomalies), 0) AS anomalies,
         coalesce(sum(lost_reports), 0) AS lost_reports
  FROM silver.ended_sessions
  WHERE NOT is_open
  GROUP BY window, app_name, app_version, player_name, player_version, device_type, os, browser, country, isp, cdn,
           content_id, stream_type
) AS minutes

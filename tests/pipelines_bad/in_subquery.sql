-- Refused at line 6: do not run on Arroyo; use a join
SELECT window.start AS window_start, window.end AS window_end, cdn, requests
FROM (
  SELECT tumble(interval '1 minute') AS window, cdn, count(*) AS requests
  FROM silver.cdn_requests
  WHERE session_id IN (SELECT session_id FROM silver.playback_sessions)
  GROUP BY window, cdn
) AS minutes

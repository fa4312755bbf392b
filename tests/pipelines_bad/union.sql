-- Refused at line 6: only UNION ALL runs on Arroyo
SELECT window.start AS window_start, window.end AS window_end, cdn, requests
FROM (
  SELECT tumble(interval '1 minute') AS window, cdn, count(*) AS requests
  FROM (
    SELECT cdn FROM silver.cdn_requests
    UNION
    SELECT cdn FROM silver.playback_sessions
  ) AS both
  GROUP BY window, cdn
) AS minutes

-- Refused at line 6: SELECT DISTINCT does not run on Arroyo
SELECT window.start AS window_start, window.end AS window_end, cdn, requests
FROM (
  SELECT tumble(interval '1 minute') AS window, cdn, count(*) AS requests
  FROM (
    SELECT DISTINCT cdn, session_id FROM silver.cdn_requests
  ) AS sessions
  GROUP BY window, cdn
) AS minutes

-- Refused at line 2: LIMIT cannot stand in a pipeline
SELECT window.start AS window_start, window.end AS window_end, cdn, requests
FROM (
  SELECT tumble(interval '1 minute') AS window, cdn, count(*) AS requests
  FROM silver.cdn_requests
  GROUP BY window, cdn
) AS minutes
LIMIT 10

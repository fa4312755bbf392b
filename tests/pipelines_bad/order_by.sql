-- Refused at line 8: Arroyo has none, and rows of a table have no order
SELECT window.start AS window_start, window.end AS window_end, cdn, requests
FROM (
  SELECT tumble(interval '1 minute') AS window, cdn, count(*) AS requests
  FROM silver.cdn_requests
  GROUP BY window, cdn
) AS minutes
ORDER BY requests

-- Refused at line 5: Arroyo knows one in a GROUP BY
SELECT window.start AS window_start, window.end AS window_end, cdn, requests
FROM (
  SELECT tumble(interval '1 minute') AS window, cdn,
         tumble(interval '5 minutes') AS longer, count(*) AS requests
  FROM silver.cdn_requests
  GROUP BY window, longer, cdn
) AS minutes

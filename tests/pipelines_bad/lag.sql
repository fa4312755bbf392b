-- Refused at line 3: lag() OVER does not run on Arroyo
SELECT window.start AS window_start, window.end AS window_end, cdn,
       requests - lag(requests) OVER (PARTITION BY cdn) AS requests
FROM (
  SELECT tumble(interval '1 minute') AS window, cdn, count(*) AS requests
  FROM silver.cdn_requests
  GROUP BY window, cdn
) AS minutes

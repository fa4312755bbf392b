-- Refused at line 4: none over the rows of another window
SELECT window.start AS window_start, window.end AS window_end, most
FROM (
  SELECT tumble(interval '1 hour') AS window, max(requests) AS most
  FROM (
    SELECT tumble(interval '1 minute') AS minute, count(*) AS requests
    FROM silver.cdn_requests
    GROUP BY minute
  ) AS minutes
  GROUP BY window
) AS hours

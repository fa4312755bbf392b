-- Refused at line 5: `silver.rejects` is not relayed
SELECT window.start AS window_start, window.end AS window_end, reason, requests
FROM (
  SELECT tumble(interval '1 minute') AS window, reason, count(*) AS requests
  FROM silver.rejects
  GROUP BY window, reason
) AS minutes

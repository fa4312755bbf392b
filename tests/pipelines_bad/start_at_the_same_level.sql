-- Refused at line 2: one query level up
SELECT tumble(interval '1 minute') AS window, window.start AS window_start,
       window.end AS window_end, count(*) AS requests
FROM silver.cdn_requests
GROUP BY window

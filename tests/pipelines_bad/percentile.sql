-- Refused at line 5: write approx_percentile_cont(0.95) WITHIN GROUP
SELECT window.start AS window_start, window.end AS window_end, cdn, requests
FROM (
  SELECT tumble(interval '1 minute') AS window, cdn, 
         approx_percentile_cont(ttfb_ms, 0.95) AS requests
  FROM silver.cdn_requests
  GROUP BY window, cdn
) AS minutes

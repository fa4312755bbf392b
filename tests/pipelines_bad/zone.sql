-- Refused at line 7: timestamps have no zone
SELECT window.start AS window_start, window.end AS window_end, cdn, requests
FROM (
  SELECT tumble(interval '1 minute') AS window, cdn, count(*) AS requests
  FROM silver.cdn_requests
  WHERE received_at >
        CAST('2026-01-01' AS TIMESTAMP WITH TIME ZONE)
  GROUP BY window, cdn
) AS minutes

-- Refused at line 4: session(gap) cannot stand in a pipeline
SELECT window.start AS window_start, window.end AS window_end, cdn, requests
FROM (
  SELECT session(interval '20 minutes') AS window, cdn, count(*) AS requests
  FROM silver.cdn_requests
  GROUP BY window, cdn
) AS minutes

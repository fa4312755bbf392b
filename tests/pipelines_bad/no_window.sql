-- Refused at line 6: an aggregate without a window
SELECT window.start AS window_start, window.end AS window_end, cdn, requests
FROM (
  SELECT tumble(interval '1 minute') AS window, cdn, count(*) AS requests
  FROM (
    SELECT cdn, session_id, count(*) AS times
    FROM silver.cdn_requests
    GROUP BY cdn, session_id
  ) AS sessions
  GROUP BY window, cdn
) AS minutes

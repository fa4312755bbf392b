-- Refused at line 7: Arroyo joins what the same window closed
SELECT window.start AS window_start, window.end AS window_end, cdn, requests
FROM (
  SELECT tumble(interval '1 minute') AS window, requests.cdn AS cdn, count(*) AS requests
  FROM silver.cdn_requests AS requests
  JOIN silver.player_events AS reports
    ON reports.request_id = requests.request_id
  GROUP BY window, cdn
) AS minutes

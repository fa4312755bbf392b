-- Refused at line 4: the width is a whole multiple of the slide
SELECT window.start AS window_start, window.end AS window_end, cdn, requests
FROM (
  SELECT hop(interval '2 minutes', interval '5 minutes') AS window, cdn, count(*) AS requests
  FROM silver.cdn_requests
  GROUP BY window, cdn
) AS minutes

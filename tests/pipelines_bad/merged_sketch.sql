-- Refused at line 5: sketch_merge() does not run on Arroyo
SELECT window.start AS window_start, window.end AS window_end, sketch
FROM (
  SELECT tumble(interval '1 minute') AS window,
         sketch_merge(sketch_column) AS sketch
  FROM silver.cdn_requests
  GROUP BY window
) AS minutes

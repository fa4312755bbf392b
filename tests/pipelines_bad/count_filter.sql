-- Refused at line 8: Arroyo's count(...) FILTER also counts rows whose condition is NULL
-- Columns:
--   viewers: distinct clients on Wi-Fi (distinct)
--   quick: startups of at most a second (count)
SELECT window.start AS window_start, window.end AS window_end, cdn, viewers, quick
FROM (
  SELECT tumble(interval '1 minute') AS window, cdn, count(DISTINCT client) FILTER (WHERE connection_type = 'wifi') AS viewers,
         count(*) FILTER (WHERE startup_ms <= 1000) AS quick
  FROM silver.playback_sessions
  GROUP BY window, cdn
) AS minutes

-- What the CDN delivered: requests, status classes, cache, first byte, bytes.
-- Reads:    silver.cdn_requests.
-- Grain:    one minute by CDN, POP, edge location, ISP and country.
-- Lateness: CDN logs come up to a day late; their windows are computed again.
-- Columns:
--   requests: requests (count)
--   ok_requests: 2xx or 304 (count)
--   client_aborts: closed before an answer, status 0 (count)
--   status_2xx: answers 200 to 299 (count)
--   status_3xx: answers 300 to 399 (count)
--   status_4xx: answers 400 to 499 (count)
--   status_5xx: answers 500 to 599 (count)
--   cache_hits: served from cache: Hit, RefreshHit, OriginShieldHit (count)
--   cache_lookups: those and Miss: what a hit ratio is over (count)
--   ttfb_ms_sum: sum of times to first byte of ok requests (ms)
--   ttfb_count: ok requests whose time to first byte is known (count)
--   time_taken_ms_sum: sum of whole request times of ok requests (ms)
--   time_taken_count: ok requests whose time is known (count)
--   bytes: bytes to the clients, headers included (bytes)
SELECT window.start AS window_start, window.end AS window_end, cdn, pop, edge_location, isp, country,
       requests, ok_requests, client_aborts, status_2xx, status_3xx, status_4xx, status_5xx,
       cache_hits, cache_lookups, ttfb_ms_sum, ttfb_count, time_taken_ms_sum, time_taken_count, bytes
FROM (
  SELECT tumble(interval '1 minute') AS window, cdn, pop, edge_location, isp, country,
         count(*) AS requests,
         count(*) FILTER (WHERE is_ok = 1) AS ok_requests,
         count(*) FILTER (WHERE status = 0) AS client_aborts,
         count(*) FILTER (WHERE status BETWEEN 200 AND 299) AS status_2xx,
         count(*) FILTER (WHERE status BETWEEN 300 AND 399) AS status_3xx,
         count(*) FILTER (WHERE status BETWEEN 400 AND 499) AS status_4xx,
         count(*) FILTER (WHERE status BETWEEN 500 AND 599) AS status_5xx,
         count(*) FILTER (WHERE result IN ('Hit', 'RefreshHit', 'OriginShieldHit')) AS cache_hits,
         count(*) FILTER (WHERE result IN ('Hit', 'RefreshHit', 'OriginShieldHit', 'Miss')) AS cache_lookups,
         coalesce(sum(ttfb_ms) FILTER (WHERE is_ok = 1), 0) AS ttfb_ms_sum,
         count(ttfb_ms) FILTER (WHERE is_ok = 1) AS ttfb_count,
         coalesce(sum(time_taken_ms) FILTER (WHERE is_ok = 1), 0) AS time_taken_ms_sum,
         count(time_taken_ms) FILTER (WHERE is_ok = 1) AS time_taken_count,
         coalesce(sum(sc_bytes), 0) AS bytes
  FROM (
    SELECT cdn, pop, edge_location, isp, country, status, ttfb_ms, time_taken_ms, sc_bytes,
           coalesce(response_result_type, result_type) AS result,
           CASE WHEN status BETWEEN 200 AND 299 OR status = 304 THEN 1 ELSE 0 END AS is_ok
    FROM silver.cdn_requests
  ) AS requests
  GROUP BY window, cdn, pop, edge_location, isp, country
) AS minutes

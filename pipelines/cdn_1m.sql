-- What the CDN delivered: requests, status classes, cache, first byte, throughput, origin, bytes.
-- Reads:    silver.cdn_requests, without the traffic between the CDN's own servers (weight 0).
-- Grain:    one minute by CDN, POP with its city, edge location, ISP and country.
-- Lateness: CDN logs come up to a day late; their windows are computed again.
-- Sampling: counts and bytes are of the requests that a sampled log stands for. A row whose weight is
--           no whole number (3.333 at 30 %) counts as 3 or 4, by digits of its own id, so that counts
--           are right on average, equal on every run, and parts add up to their whole; requests_milli
--           is the exact sum. What times are taken over (`..._count`, `..._ms_sum`, sketches, slow
--           requests, throughput) is the rows of the log as they are.
-- Rolls up: 5 minutes, 1 hour, 1 day
-- Columns:
--   logged: rows of the log: what a ratio is judged to be sure by (count)
--   requests: requests that those rows stand for (count)
--   requests_milli: the same in thousandths and exact, fractions of a sampled row included (count x 1000)
--   ok_requests: 2xx or 304 (count)
--   client_aborts: closed before an answer, status 0 (count)
--   aborts: those, and answers that the viewer did not wait for the end of, where the log tells (count)
--   status_2xx: answers 200 to 299 (count)
--   status_3xx: answers 300 to 399 (count)
--   status_4xx: answers 400 to 499 (count)
--   status_5xx: answers 500 to 599 (count)
--   status_403: of status_4xx, forbidden: tokens, geo-blocks (count)
--   status_404: of status_4xx, not found (count)
--   status_416: of status_4xx, range not satisfiable (count)
--   status_429: of status_4xx, too many requests (count)
--   status_502: of status_5xx, bad gateway: the origin's answer was no good (count)
--   status_503: of status_5xx, unavailable (count)
--   status_504: of status_5xx, the origin did not answer in time (count)
--   cache_hits: GET and HEAD served from cache: Hit, RefreshHit, OriginShieldHit (count)
--   cache_lookups: those and Miss: what a hit ratio is over (count)
--   refresh_hits: of cache_hits, after the origin was asked whether the copy is fresh (count)
--   shield_hits: of cache_hits, from the shield before the origin, not from the edge (count)
--   hit_bytes: bytes of cache_hits (bytes)
--   lookup_bytes: bytes of cache_lookups (bytes)
--   origin_requests: requests that reached the origin: Miss and RefreshHit of any method (count)
--   origin_bytes: bytes of the misses, which came from the origin; a fresh copy moves none (bytes)
--   origin_ttfb_ms_sum: sum of times to the origin's first byte as the edge saw it (ms)
--   origin_ttfb_count: requests to the origin where the log tells that time (count)
--   ttfb_ms_sum: sum of times to first byte of ok requests (ms)
--   ttfb_count: ok requests whose time to first byte is known (count)
--   slow_requests: of ttfb_count, first byte after more than 1,000 ms (count)
--   ttfb_hit_count: ok GETs from cache, not aborted, whose time to first byte is known (count)
--   ttfb_hit_sketch: their times to first byte, ms (sketch)
--   ttfb_miss_count: the same of misses (count)
--   ttfb_miss_sketch: their times to first byte, ms (sketch)
--   time_taken_ms_sum: sum of whole request times of ok requests (ms)
--   time_taken_count: ok requests whose time is known (count)
--   throughput_bytes: bytes of whole ok segments of 64 KiB and more whose times are known (bytes)
--   throughput_ms: first to last byte of the same, at least 1 ms each (ms)
--   throughput_count: the same segments (count)
--   bytes: bytes to the clients, headers included (bytes)
SELECT window.start AS window_start, window.end AS window_end, cdn, pop, pop_city, edge_location, isp, country, logged,
       requests, requests_milli, ok_requests, client_aborts, aborts, status_2xx, status_3xx, status_4xx, status_5xx, status_403,
       status_404, status_416, status_429, status_502, status_503, status_504, cache_hits, cache_lookups,
       refresh_hits, shield_hits, hit_bytes, lookup_bytes, origin_requests, origin_bytes, origin_ttfb_ms_sum,
       origin_ttfb_count, ttfb_ms_sum, ttfb_count, slow_requests, ttfb_hit_count, ttfb_hit_sketch, ttfb_miss_count,
       ttfb_miss_sketch, time_taken_ms_sum, time_taken_count, throughput_bytes, throughput_ms, throughput_count, bytes
FROM (
  SELECT tumble(interval '1 minute') AS window, cdn, pop, pop_city, edge_location, isp, country,
         count(*) AS logged,
         sum(weight) AS requests,
         sum(sample_weight_milli) AS requests_milli,
         coalesce(sum(weight) FILTER (WHERE is_ok), 0) AS ok_requests,
         coalesce(sum(weight) FILTER (WHERE status = 0), 0) AS client_aborts,
         coalesce(sum(weight) FILTER (WHERE aborted), 0) AS aborts,
         coalesce(sum(weight) FILTER (WHERE status BETWEEN 200 AND 299), 0) AS status_2xx,
         coalesce(sum(weight) FILTER (WHERE status BETWEEN 300 AND 399), 0) AS status_3xx,
         coalesce(sum(weight) FILTER (WHERE status BETWEEN 400 AND 499), 0) AS status_4xx,
         coalesce(sum(weight) FILTER (WHERE status BETWEEN 500 AND 599), 0) AS status_5xx,
         coalesce(sum(weight) FILTER (WHERE status = 403), 0) AS status_403,
         coalesce(sum(weight) FILTER (WHERE status = 404), 0) AS status_404,
         coalesce(sum(weight) FILTER (WHERE status = 416), 0) AS status_416,
         coalesce(sum(weight) FILTER (WHERE status = 429), 0) AS status_429,
         coalesce(sum(weight) FILTER (WHERE status = 502), 0) AS status_502,
         coalesce(sum(weight) FILTER (WHERE status = 503), 0) AS status_503,
         coalesce(sum(weight) FILTER (WHERE status = 504), 0) AS status_504,
         coalesce(sum(weight) FILTER (WHERE is_read AND is_hit), 0) AS cache_hits,
         coalesce(sum(weight) FILTER (WHERE is_read AND (is_hit OR is_miss)), 0) AS cache_lookups,
         coalesce(sum(weight) FILTER (WHERE is_read AND result = 'RefreshHit'), 0) AS refresh_hits,
         coalesce(sum(weight) FILTER (WHERE is_read AND result = 'OriginShieldHit'), 0) AS shield_hits,
         coalesce(sum(bytes) FILTER (WHERE is_read AND is_hit), 0) AS hit_bytes,
         coalesce(sum(bytes) FILTER (WHERE is_read AND (is_hit OR is_miss)), 0) AS lookup_bytes,
         coalesce(sum(weight) FILTER (WHERE is_miss OR result = 'RefreshHit'), 0) AS origin_requests,
         coalesce(sum(bytes) FILTER (WHERE is_miss), 0) AS origin_bytes,
         coalesce(sum(origin_ttfb_ms), 0) AS origin_ttfb_ms_sum,
         count(origin_ttfb_ms) AS origin_ttfb_count,
         coalesce(sum(ok_ttfb_ms), 0) AS ttfb_ms_sum,
         count(ok_ttfb_ms) AS ttfb_count,
         count(CASE WHEN ok_ttfb_ms > 1000 THEN 1 END) AS slow_requests,
         count(CASE WHEN is_hit THEN whole_ttfb_ms END) AS ttfb_hit_count,
         sketch_build(whole_ttfb_ms) FILTER (WHERE is_hit) AS ttfb_hit_sketch,
         count(CASE WHEN is_miss THEN whole_ttfb_ms END) AS ttfb_miss_count,
         sketch_build(whole_ttfb_ms) FILTER (WHERE is_miss) AS ttfb_miss_sketch,
         coalesce(sum(time_taken_ms) FILTER (WHERE is_ok), 0) AS time_taken_ms_sum,
         count(CASE WHEN is_ok THEN time_taken_ms END) AS time_taken_count,
         coalesce(sum(sc_bytes) FILTER (WHERE transfer_ms > 0), 0) AS throughput_bytes,
         coalesce(sum(transfer_ms), 0) AS throughput_ms,
         count(transfer_ms) AS throughput_count,
         coalesce(sum(bytes), 0) AS bytes
  FROM (
    SELECT cdn, pop, pop_city, edge_location, isp, country, status, result, sample_weight_milli, weight, is_ok,
           is_read, aborted, time_taken_ms, sc_bytes, bytes,
           coalesce(result, '') IN ('Hit', 'RefreshHit', 'OriginShieldHit') AS is_hit,
           coalesce(result, '') = 'Miss' AS is_miss,
           CASE WHEN coalesce(result, '') NOT IN ('Hit', 'OriginShieldHit') THEN origin_ttfb_ms END AS origin_ttfb_ms,
           CASE WHEN is_ok THEN ttfb_ms END AS ok_ttfb_ms,
           CASE WHEN is_ok AND is_get AND NOT aborted THEN ttfb_ms END AS whole_ttfb_ms,
           CASE WHEN is_ok AND NOT aborted AND object_class = 'segment' AND sc_bytes >= 65536
                     AND time_taken_ms - ttfb_ms IS NOT NULL
                THEN greatest(time_taken_ms - ttfb_ms, 1) END AS transfer_ms
    FROM (
      SELECT cdn, pop, pop_city, edge_location, isp, country, coalesce(status, -1) AS status, ttfb_ms, time_taken_ms,
             sc_bytes, sample_weight_milli, origin_ttfb_ms, object_class,
             CASE WHEN detailed_result_type = 'OriginShieldHit' THEN detailed_result_type
                  ELSE coalesce(response_result_type, result_type) END AS result,
             CASE WHEN sample_weight_milli % 1000 = 0 THEN sample_weight_milli / 1000
                  ELSE (sample_weight_milli * 256 + 1000 * (16 * strpos('123456789abcdef', substr(event_id, 31, 1))
                        + strpos('123456789abcdef', substr(event_id, 32, 1)))) / 256000 END AS weight,
             sc_bytes * sample_weight_milli / 1000 AS bytes,
             coalesce(status BETWEEN 200 AND 299 OR status = 304, false) AS is_ok,
             coalesce(status = 0, false)
             OR coalesce(is_aborted,
                         detailed_result_type IN ('ClientCommError', 'ClientHungUpRequest', 'AbortedOrigin')
                           OR (result_type = 'Error' AND response_result_type IN ('Hit', 'RefreshHit', 'Miss')),
                         false) AS aborted,
             coalesce(method, 'GET') IN ('GET', 'HEAD') AS is_read,
             coalesce(method, 'GET') = 'GET' AS is_get
      FROM silver.cdn_requests
      WHERE sample_weight_milli > 0
    ) AS requests
  ) AS classes
  GROUP BY window, cdn, pop, pop_city, edge_location, isp, country
) AS minutes

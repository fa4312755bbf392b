-- The CDNs side by side, for what steers traffic: errors, cache, first byte, throughput, startup, stalls, matches.
-- Reads:    gold.cdn_1m, gold.delivery_1m, gold.cdn_1d (the day before). Nothing is stored: it is as fresh as they are.
-- Grain:    one row a window, CDN and country; cdn_compare_5m, _1h and _1d read the tables of their own windows.
-- Query:    a Lambda reads one row a CDN:
--             SELECT cdn, requests, error_5xx, cache_hit_ratio, ttfb_hit_p95_ms, rebuffer_ratio, ttfb_hit_to_day_before
--             FROM gold.cdn_compare_5m
--             WHERE country = 'DE' AND is_final AND window_start >= now() - interval '15 minutes'
--           Over several windows: sum the counts and divide; ratios and percentiles are of one window.
-- Columns:
--   window_start: start of the window, UTC
--   window_end: end of the window, exclusive, UTC
--   cdn: CDN name
--   country: ISO 3166-1 alpha-2
--   is_final: false while the window is open or late data wait to be counted
--   logged: rows of the log: what a ratio is judged to be sure by (count)
--   requests: requests that those rows stand for (count)
--   status_4xx: answers 400 to 499 (count)
--   status_5xx: answers 500 to 599 (count)
--   aborts: as in gold.cdn_1m (count)
--   cache_hits: as in gold.cdn_1m (count)
--   cache_lookups: what a hit ratio is over (count)
--   ttfb_ms_sum: sum of times to first byte of ok requests (ms)
--   ttfb_count: ok requests whose time to first byte is known (count)
--   bytes: bytes to the clients (bytes)
--   attempts: sessions whose intent to play came in the window (count)
--   plays: of those attempts, how many showed a frame (count)
--   start_failures: of those attempts, failed before the first frame (count)
--   startup_count: plays whose startup time is known (count)
--   playing_ms: time that frames moved (ms)
--   stall_ms: rebuffering, seek-induced excluded (ms)
--   reports: player events that tell of one request (count)
--   matched: of those, joined to a request of the log (count)
--   error_4xx: status_4xx over requests (ratio)
--   error_5xx: status_5xx over requests (ratio)
--   abort_ratio: aborts over requests (ratio)
--   cache_hit_ratio: cache_hits over cache_lookups (ratio)
--   ttfb_mean_ms: mean time to first byte, hits and misses together (ms)
--   ttfb_hit_p50_ms: median time to first byte of hits (ms)
--   ttfb_hit_p95_ms: 95th percentile of the same (ms)
--   ttfb_miss_p50_ms: median time to first byte of misses (ms)
--   ttfb_miss_p95_ms: 95th percentile of the same (ms)
--   throughput_kbps: of whole segments of 64 KiB and more, as the edge saw it (kbit/s)
--   egress_mbps: bits to the clients over the length of the window (Mbit/s)
--   start_failure_ratio: start_failures over attempts (ratio)
--   startup_p50_ms: median startup time (ms)
--   startup_p95_ms: 95th percentile of the same (ms)
--   rebuffer_ratio: stall_ms over playing_ms and stall_ms (ratio)
--   match_ratio: matched over reports (ratio)
--   ttfb_day_before_ms: mean time to first byte of the same CDN and country on the UTC day before; null until there is one (ms)
--   ttfb_to_day_before: ttfb_mean_ms over it: 2 is twice as slow as yesterday (ratio)
--   ttfb_hit_day_before_ms: median time to first byte of that day's hits: what the edge itself usually takes (ms)
--   ttfb_hit_to_day_before: ttfb_hit_p50_ms over it (ratio)
--   ttfb_miss_day_before_ms: median time to first byte of that day's misses, the origin's work in them (ms)
--   ttfb_miss_to_day_before: ttfb_miss_p50_ms over it (ratio)
SELECT windows.window_start, windows.window_end, windows.cdn, windows.country, windows.is_final, windows.logged,
       windows.requests, windows.status_4xx, windows.status_5xx, windows.aborts, windows.cache_hits,
       windows.cache_lookups, windows.ttfb_ms_sum, windows.ttfb_count, windows.bytes, windows.attempts, windows.plays,
       windows.start_failures, windows.startup_count, windows.playing_ms, windows.stall_ms, windows.reports,
       windows.matched,
       windows.status_4xx * 1.0 / nullif(windows.requests, 0) AS error_4xx,
       windows.status_5xx * 1.0 / nullif(windows.requests, 0) AS error_5xx,
       windows.aborts * 1.0 / nullif(windows.requests, 0) AS abort_ratio,
       windows.cache_hits * 1.0 / nullif(windows.cache_lookups, 0) AS cache_hit_ratio,
       windows.ttfb_ms_sum * 1.0 / nullif(windows.ttfb_count, 0) AS ttfb_mean_ms,
       sketch_quantile(windows.ttfb_hit_sketch, 0.5) AS ttfb_hit_p50_ms,
       sketch_quantile(windows.ttfb_hit_sketch, 0.95) AS ttfb_hit_p95_ms,
       sketch_quantile(windows.ttfb_miss_sketch, 0.5) AS ttfb_miss_p50_ms,
       sketch_quantile(windows.ttfb_miss_sketch, 0.95) AS ttfb_miss_p95_ms,
       windows.throughput_bytes * 8.0 / nullif(windows.throughput_ms, 0) AS throughput_kbps,
       windows.bytes * 8.0 / 1000000.0
         / (date_part('epoch', windows.window_end) - date_part('epoch', windows.window_start)) AS egress_mbps,
       windows.start_failures * 1.0 / nullif(windows.attempts, 0) AS start_failure_ratio,
       sketch_quantile(windows.startup_sketch, 0.5) AS startup_p50_ms,
       sketch_quantile(windows.startup_sketch, 0.95) AS startup_p95_ms,
       windows.stall_ms * 1.0 / nullif(windows.playing_ms + windows.stall_ms, 0) AS rebuffer_ratio,
       windows.matched * 1.0 / nullif(windows.reports, 0) AS match_ratio,
       day_before.ttfb_mean_ms AS ttfb_day_before_ms,
       windows.ttfb_ms_sum * 1.0 / nullif(windows.ttfb_count, 0) / nullif(day_before.ttfb_mean_ms, 0) AS ttfb_to_day_before,
       day_before.ttfb_hit_ms AS ttfb_hit_day_before_ms,
       sketch_quantile(windows.ttfb_hit_sketch, 0.5) / nullif(day_before.ttfb_hit_ms, 0) AS ttfb_hit_to_day_before,
       day_before.ttfb_miss_ms AS ttfb_miss_day_before_ms,
       sketch_quantile(windows.ttfb_miss_sketch, 0.5) / nullif(day_before.ttfb_miss_ms, 0) AS ttfb_miss_to_day_before
FROM (
  SELECT window_start, window_end, cdn, country, bool_and(is_final) AS is_final,
         sum(logged) AS logged, sum(requests) AS requests, sum(status_4xx) AS status_4xx, sum(status_5xx) AS status_5xx,
         sum(aborts) AS aborts, sum(cache_hits) AS cache_hits, sum(cache_lookups) AS cache_lookups,
         sum(ttfb_ms_sum) AS ttfb_ms_sum, sum(ttfb_count) AS ttfb_count,
         sketch_merge(ttfb_hit_sketch) AS ttfb_hit_sketch, sketch_merge(ttfb_miss_sketch) AS ttfb_miss_sketch,
         sum(throughput_bytes) AS throughput_bytes, sum(throughput_ms) AS throughput_ms, sum(bytes) AS bytes,
         sum(attempts) AS attempts, sum(plays) AS plays, sum(start_failures) AS start_failures,
         sum(startup_count) AS startup_count, sketch_merge(startup_sketch) AS startup_sketch,
         sum(playing_ms) AS playing_ms, sum(stall_ms) AS stall_ms, sum(reports) AS reports, sum(matched) AS matched
  FROM (
    SELECT window_start, window_end, cdn, country, is_final, logged, requests, status_4xx, status_5xx, aborts, cache_hits,
           cache_lookups, ttfb_ms_sum, ttfb_count, ttfb_hit_sketch, ttfb_miss_sketch, throughput_bytes, throughput_ms,
           bytes, 0 AS attempts, 0 AS plays, 0 AS start_failures, 0 AS startup_count, NULL AS startup_sketch,
           0 AS playing_ms, 0 AS stall_ms, 0 AS reports, 0 AS matched
    FROM gold.cdn_1m
    UNION ALL
    SELECT window_start, window_end, cdn, country, is_final, 0 AS logged, 0 AS requests, 0 AS status_4xx, 0 AS status_5xx,
           0 AS aborts, 0 AS cache_hits, 0 AS cache_lookups, 0 AS ttfb_ms_sum, 0 AS ttfb_count, NULL AS ttfb_hit_sketch,
           NULL AS ttfb_miss_sketch, 0 AS throughput_bytes, 0 AS throughput_ms, 0 AS bytes, attempts, plays,
           start_failures, startup_count, startup_sketch, playing_ms, stall_ms, reports,
           matched_by_id + matched_by_session AS matched
    FROM gold.delivery_1m
  ) AS rows
  GROUP BY window_start, window_end, cdn, country
) AS windows
LEFT JOIN (
  SELECT window_start, cdn, country, sum(ttfb_ms_sum) * 1.0 / nullif(sum(ttfb_count), 0) AS ttfb_mean_ms,
         sketch_quantile(sketch_merge(ttfb_hit_sketch), 0.5) AS ttfb_hit_ms,
         sketch_quantile(sketch_merge(ttfb_miss_sketch), 0.5) AS ttfb_miss_ms
  FROM gold.cdn_1d
  GROUP BY window_start, cdn, country
) AS day_before
  ON day_before.cdn = windows.cdn AND coalesce(day_before.country, '') = coalesce(windows.country, '')
 AND day_before.window_start = date_trunc('day', windows.window_start) - interval '1 day'

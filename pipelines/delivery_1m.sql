-- What viewers got from each POP and ISP: startup and stalls joined to the CDN's requests, and how many could be joined.
-- Reads:    silver.playback_sessions (by start), silver.playback_intervals, silver.player_events, silver.cdn_requests.
-- Grain:    one minute by CDN, POP with its city, ISP and country.
-- Lateness: CDN logs come up to a day late; the windows that they reach are computed again.
-- Reach: 1 minute
--           (clocks of players and CDNs that differ by more are not joined; a longer reach would have every
--           window computed several times before it settles)
-- Join:     a report that carries the CDN's request id is joined by it, up to 1 minute apart; one that names
--           session and URL but no id, to a request of that session and path within 30 s. What is known of
--           a session in a minute by either id, or by the session id of its CMCD in the log, says which POP
--           served it: the one of the first request, which a session that changes over in a stall suffered
--           from. Nothing is lost: a minute of a session that no request is known of keeps its numbers, with
--           the player's own CDN name and no POP. Reports that were made from the log itself are no reports
--           here: they would always be joined. A report that meets two requests counts once: it is a group of
--           its own before its session's minute is added up (count(DISTINCT) here takes five times as long).
-- Runs on: here only, because it joins reports to requests within a reach of time, and Arroyo joins what one window closed
-- Begins with: silver.cdn_requests, silver.playback_sessions
--           (a lake that has never had a request, or never a session, has nothing to join: the table stays empty
--           until there are both, and then holds all that silver holds)
-- Session:  the requests of one session, slow ones first:
--             SELECT requests.event_ts, requests.cdn, requests.pop, requests.isp, requests.ttfb_ms, requests.result_type
--             FROM silver.cdn_requests AS requests
--             LEFT JOIN (SELECT request_id, min(session_key) AS session_key FROM silver.player_events
--                        WHERE basis <> 'estimated' GROUP BY request_id) AS reports
--                    ON reports.request_id = requests.request_id
--             WHERE coalesce(requests.session_id, reports.session_key) = '...' ORDER BY requests.ttfb_ms DESC
-- Rolls up: 5 minutes, 1 hour, 1 day
-- Columns:
--   attempts: sessions whose intent to play came in the window (count)
--   plays: of those attempts, how many showed a frame (count)
--   start_failures: of those attempts, failed before the first frame (count)
--   startup_ms_sum: sum of startup times of those plays (ms)
--   startup_count: plays whose startup time is known (count)
--   startup_sketch: startup times, ms (sketch)
--   playing_ms: time that frames moved (ms)
--   stall_ms: rebuffering, seek-induced excluded (ms)
--   stall_count: rebufferings that began in the window, seek-induced excluded (count)
--   located_ms: of playing_ms and stall_ms, in minutes of sessions whose POP is known (ms)
--   reports: player events that tell of one request, by id or by session and URL: what a match rate is over (count)
--   matched_by_id: of those, joined by the request's id (count)
--   matched_by_session: of those, joined by session, path and time (count)
--   stalled_ttfb_ms_sum: times to first byte of the requests known of sessions in minutes in which they stalled (ms)
--   stalled_ttfb_count: those requests, as far as that time is known (count)
--   stalled_slow_requests: of those, first byte after more than 1,000 ms (count)
--   stalled_hits: requests of those sessions and minutes that came from cache (count)
--   stalled_misses: the same that missed it (count)
SELECT window.start AS window_start, window.end AS window_end, cdn, pop, pop_city, isp, country, attempts, plays,
       start_failures, startup_ms_sum, startup_count, startup_sketch, playing_ms, stall_ms, stall_count, located_ms,
       reports, matched_by_id, matched_by_session, stalled_ttfb_ms_sum, stalled_ttfb_count, stalled_slow_requests,
       stalled_hits, stalled_misses
FROM (
  SELECT window, cdn, pop, pop_city, isp, country,
         sum(attempts) AS attempts,
         sum(plays) AS plays,
         sum(start_failures) AS start_failures,
         sum(startup_ms_sum) AS startup_ms_sum,
         sum(startup_count) AS startup_count,
         sketch_merge(startup_sketch) AS startup_sketch,
         sum(playing_ms) AS playing_ms,
         sum(stall_ms) AS stall_ms,
         sum(stall_count) AS stall_count,
         coalesce(sum(playing_ms + stall_ms) FILTER (WHERE pop IS NOT NULL), 0) AS located_ms,
         sum(reports) AS reports,
         sum(matched_by_id) AS matched_by_id,
         sum(matched_by_session) AS matched_by_session,
         coalesce(sum(ttfb_ms_sum) FILTER (WHERE stall_ms > 0), 0) AS stalled_ttfb_ms_sum,
         coalesce(sum(ttfb_count) FILTER (WHERE stall_ms > 0), 0) AS stalled_ttfb_count,
         coalesce(sum(slow_requests) FILTER (WHERE stall_ms > 0), 0) AS stalled_slow_requests,
         coalesce(sum(hits) FILTER (WHERE stall_ms > 0), 0) AS stalled_hits,
         coalesce(sum(misses) FILTER (WHERE stall_ms > 0), 0) AS stalled_misses
  FROM (
    SELECT window,
           coalesce(nullif(split_part(place, '|', 2), ''), cdn) AS cdn,
           nullif(split_part(place, '|', 3), '') AS pop,
           nullif(split_part(place, '|', 4), '') AS pop_city,
           coalesce(isp, nullif(split_part(place, '|', 6), '')) AS isp,
           coalesce(country, nullif(split_part(place, '|', 5), '')) AS country,
           attempts, plays, start_failures, startup_ms_sum, startup_count, startup_sketch, playing_ms, stall_ms,
           stall_count, reports, matched_by_id, matched_by_session, ttfb_ms_sum, ttfb_count, slow_requests, hits, misses
    FROM (
      SELECT window, session_key,
             min(place) AS place, min(cdn) AS cdn, min(isp) AS isp, min(country) AS country,
             sum(seen) AS seen,
             sum(attempts) AS attempts,
             sum(plays) AS plays,
             sum(start_failures) AS start_failures,
             sum(startup_ms_sum) AS startup_ms_sum,
             sum(startup_count) AS startup_count,
             sketch_merge(startup_sketch) AS startup_sketch,
             sum(playing_ms) AS playing_ms,
             sum(stall_ms) AS stall_ms,
             sum(stall_count) AS stall_count,
             sum(reports) AS reports,
             count(matched_by_id) AS matched_by_id,
             count(matched_by_session) AS matched_by_session,
             sum(ttfb_ms_sum) AS ttfb_ms_sum,
             sum(ttfb_count) AS ttfb_count,
             sum(slow_requests) AS slow_requests,
             sum(hits) AS hits,
             sum(misses) AS misses
      FROM (
        SELECT tumble(interval '1 minute') AS window, session_key, matched_by_id, matched_by_session,
               min(place) AS place, min(cdn) AS cdn, min(isp) AS isp, min(country) AS country,
               sum(is_seen) AS seen,
               sum(attempts) AS attempts,
               sum(plays) AS plays,
               sum(start_failures) AS start_failures,
               coalesce(sum(startup_ms), 0) AS startup_ms_sum,
               count(startup_ms) AS startup_count,
               sketch_build(startup_ms) AS startup_sketch,
               sum(playing_ms) AS playing_ms,
               sum(stall_ms) AS stall_ms,
               sum(stall_count) AS stall_count,
               sum(is_report) AS reports,
               coalesce(sum(ttfb_ms), 0) AS ttfb_ms_sum,
               count(ttfb_ms) AS ttfb_count,
               count(*) FILTER (WHERE ttfb_ms > 1000) AS slow_requests,
               count(*) FILTER (WHERE result = 'Hit') AS hits,
               count(*) FILTER (WHERE result = 'Miss') AS misses
        FROM (
          SELECT session_key, cdn, isp, country, 1 AS is_seen, attempts, plays, start_failures, startup_ms, 0 AS playing_ms,
                 0 AS stall_ms, 0 AS stall_count, 0 AS is_report, CAST(NULL AS TEXT) AS matched_by_id,
                 CAST(NULL AS TEXT) AS matched_by_session, CAST(NULL AS TEXT) AS place, CAST(NULL AS BIGINT) AS ttfb_ms,
                 CAST(NULL AS TEXT) AS result
          FROM silver.playback_sessions
          UNION ALL
          SELECT session_key, cdn, isp, country, 1 AS is_seen, 0 AS attempts, 0 AS plays, 0 AS start_failures,
                 NULL AS startup_ms, CASE WHEN state = 'playing' THEN duration_ms ELSE 0 END AS playing_ms,
                 CASE WHEN state = 'rebuffering' THEN duration_ms ELSE 0 END AS stall_ms,
                 CASE WHEN state = 'rebuffering' THEN starts ELSE 0 END AS stall_count, 0 AS is_report,
                 NULL AS matched_by_id, NULL AS matched_by_session, NULL AS place, NULL AS ttfb_ms, NULL AS result
          FROM silver.playback_intervals
          WHERE state = 'playing' OR (state = 'rebuffering' AND stall_cause <> 'seek_induced')
          UNION ALL
          SELECT session_key, cdn, isp, country, 1 AS is_seen, 0 AS attempts, 0 AS plays, 0 AS start_failures,
                 NULL AS startup_ms, 0 AS playing_ms, 0 AS stall_ms, 0 AS stall_count, 1 AS is_report,
                 NULL AS matched_by_id, NULL AS matched_by_session, NULL AS place, NULL AS ttfb_ms, NULL AS result
          FROM silver.player_events
          WHERE basis <> 'estimated'
            AND (request_id IS NOT NULL OR (session_id IS NOT NULL AND url IS NOT NULL))
          UNION ALL
          SELECT reports.session_key, NULL AS cdn, NULL AS isp, NULL AS country, 1 AS is_seen, 0 AS attempts, 0 AS plays,
                 0 AS start_failures, NULL AS startup_ms, 0 AS playing_ms, 0 AS stall_ms, 0 AS stall_count, 0 AS is_report,
                 CASE WHEN reports.minute = 0 THEN reports.event_id END AS matched_by_id,
                 CASE WHEN reports.minute > 0 THEN reports.event_id END AS matched_by_session,
                 requests.place, requests.ttfb_ms, requests.result
          FROM (
            SELECT session_key, event_id, event_ts,
                   CASE WHEN request_id IS NOT NULL THEN request_id
                        WHEN substr(url, 1, 1) = '/' THEN concat(session_id, url)
                        ELSE concat(session_id, substr(url, strpos(substr(url, 9), '/') + 8)) END AS key,
                   CASE WHEN request_id IS NOT NULL THEN 0
                        ELSE CAST(floor(date_part('epoch', event_ts) / 60) AS BIGINT) END AS minute
            FROM silver.player_events
            WHERE basis <> 'estimated'
              AND (request_id IS NOT NULL OR (session_id IS NOT NULL AND url IS NOT NULL))
          ) AS reports
          JOIN (
            SELECT request_id AS key, 0 AS minute, event_ts, 60 AS seconds,
                   concat(CAST(CAST(date_part('epoch', event_ts) * 1000 AS BIGINT) AS TEXT), '|', cdn, '|', pop, '|',
                          pop_city, '|', country, '|', isp) AS place,
                   CASE WHEN session_id IS NULL THEN ttfb_ms END AS ttfb_ms,
                   CASE WHEN session_id IS NULL THEN
                     CASE WHEN coalesce(response_result_type, result_type) IN ('Hit', 'RefreshHit', 'OriginShieldHit') THEN 'Hit'
                          ELSE coalesce(response_result_type, result_type) END END AS result
            FROM silver.cdn_requests
            WHERE sample_weight_milli > 0 AND request_id IS NOT NULL
            UNION ALL
            SELECT concat(session_id, uri_stem) AS key,
                   CAST(floor((date_part('epoch', event_ts) - 30) / 60) AS BIGINT) AS minute, event_ts, 30 AS seconds,
                   NULL AS place, NULL AS ttfb_ms, NULL AS result
            FROM silver.cdn_requests
            WHERE sample_weight_milli > 0 AND session_id IS NOT NULL AND uri_stem IS NOT NULL
            UNION ALL
            SELECT concat(session_id, uri_stem) AS key,
                   CAST(floor((date_part('epoch', event_ts) + 30) / 60) AS BIGINT) AS minute, event_ts, 30 AS seconds,
                   NULL AS place, NULL AS ttfb_ms, NULL AS result
            FROM silver.cdn_requests
            WHERE sample_weight_milli > 0 AND session_id IS NOT NULL AND uri_stem IS NOT NULL
          ) AS requests ON requests.key = reports.key AND requests.minute = reports.minute
            AND date_part('epoch', requests.event_ts) - date_part('epoch', reports.event_ts) <= requests.seconds
            AND date_part('epoch', reports.event_ts) - date_part('epoch', requests.event_ts) <= requests.seconds
          UNION ALL
          SELECT session_id AS session_key, NULL AS cdn, NULL AS isp, NULL AS country, 0 AS is_seen, 0 AS attempts, 0 AS plays,
                 0 AS start_failures, NULL AS startup_ms, 0 AS playing_ms, 0 AS stall_ms, 0 AS stall_count, 0 AS is_report,
                 NULL AS matched_by_id, NULL AS matched_by_session,
                 concat(CAST(CAST(date_part('epoch', event_ts) * 1000 AS BIGINT) AS TEXT), '|', cdn, '|', pop, '|',
                        pop_city, '|', country, '|', isp) AS place,
                 ttfb_ms,
                 CASE WHEN coalesce(response_result_type, result_type) IN ('Hit', 'RefreshHit', 'OriginShieldHit') THEN 'Hit'
                      ELSE coalesce(response_result_type, result_type) END AS result
          FROM silver.cdn_requests
          WHERE sample_weight_milli > 0 AND session_id IS NOT NULL
        ) AS facts
        GROUP BY window, session_key, matched_by_id, matched_by_session
      ) AS matches
      GROUP BY window, session_key
    ) AS sessions
    WHERE seen > 0
  ) AS placed
  GROUP BY window, cdn, pop, pop_city, isp, country
) AS minutes

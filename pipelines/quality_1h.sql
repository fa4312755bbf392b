-- How well players report: which key broke which rule, and what was lost, doubled or out of order.
-- Reads:    silver.player_events, silver.playback_sessions (by start), silver.rejects (by receipt), silver.duplicates.
-- Grain:    one hour by player, release, dialect, kind of finding, key and rule.
-- Lateness: windows are computed again when late events change them.
-- Runs on: here only, because silver.rejects and silver.duplicates are not relayed
-- Columns:
--   source: dialect of the events; on rejected the format that refused them
--   finding: events (all of them: what shares are over), key_fault, event_flag, session_flag, lost_reports, order_conflicts, anomalies, rejected or duplicates
--   key: the dialect's key that broke a rule; null for what is not about one key
--   rule: the rule that was broken; on rejected the reason
--   occurrences: how often (count)
SELECT window.start AS window_start, window.end AS window_end,
       player_name, player_version, source, finding, key, rule, occurrences
FROM (
  SELECT tumble(interval '1 hour') AS window, player_name, player_version, source, finding, key, rule,
         sum(occurrences) AS occurrences
  FROM (
    SELECT player_name, player_version, source,
           CASE WHEN found = '' THEN 'events' WHEN strpos(found, ':') > 0 THEN 'key_fault' ELSE 'event_flag' END AS finding,
           CASE WHEN strpos(found, ':') > 0 THEN split_part(found, ':', 1) END AS key,
           CASE WHEN strpos(found, ':') > 0 THEN split_part(found, ':', 2) WHEN found <> '' THEN found END AS rule,
           1 AS occurrences
    FROM (
      -- Each event counts once, and once more for each key fault (`key:rule`) and each flag: one reading of the hour.
      SELECT player_name, player_version, source, unnest(array_concat(make_array(''), key_faults, dq_flags)) AS found
      FROM silver.player_events
    ) AS found
    UNION ALL
    SELECT player_name, player_version, source, 'session_flag', NULL AS key, flag, 1
    FROM (SELECT player_name, player_version, source, unnest(dq_flags) AS flag FROM silver.playback_sessions) AS flags
    UNION ALL
    SELECT player_name, player_version, source, 'lost_reports', NULL AS key, NULL AS rule, lost_reports
    FROM silver.playback_sessions WHERE lost_reports > 0
    UNION ALL
    SELECT player_name, player_version, source, 'order_conflicts', NULL AS key, NULL AS rule, order_conflicts
    FROM silver.playback_sessions WHERE order_conflicts > 0
    UNION ALL
    SELECT player_name, player_version, source, 'anomalies', NULL AS key, NULL AS rule, anomalies
    FROM silver.playback_sessions WHERE anomalies > 0
    UNION ALL
    SELECT NULL AS player_name, NULL AS player_version, format, 'rejected', NULL AS key, reason, 1 FROM silver.rejects
    UNION ALL
    SELECT player_name, player_version, source, 'duplicates', NULL AS key, NULL AS rule, duplicates
    FROM silver.duplicates
  ) AS findings
  GROUP BY window, player_name, player_version, source, finding, key, rule
) AS hours

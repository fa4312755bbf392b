-- Clients with playback errors over clients, per app, release and kind of device.
-- Reads:    silver.playback_intervals (who was there), silver.failed_sessions (by failure).
-- Grain:    one minute by app, release, device type.
-- Lateness: windows are computed again when late events change them.
-- Columns:
--   clients: distinct clients (device, else user, else session) that did anything in the window (count)
--   clients_with_errors: of those, clients that a fatal error hit in the window (count)
--   fatal_errors: fatal errors in the window (count)
SELECT window.start AS window_start, window.end AS window_end,
       app_name, app_version, device_type, clients, clients_with_errors, fatal_errors
FROM (
  SELECT tumble(interval '1 minute') AS window, app_name, app_version, device_type,
         count(DISTINCT client) AS clients,
         count(DISTINCT client) FILTER (WHERE fatal_errors > 0) AS clients_with_errors,
         sum(fatal_errors) AS fatal_errors
  FROM (
    SELECT app_name, app_version, device_type, client, 0 AS fatal_errors FROM silver.playback_intervals
    WHERE state <> 'silent'
    UNION ALL
    SELECT app_name, app_version, device_type, client, fatal_errors FROM silver.failed_sessions
  ) AS facts
  GROUP BY window, app_name, app_version, device_type
) AS minutes

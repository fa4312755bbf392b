//! Windows that hop, from files to gold: each row counts in every window that it lies in, also when it
//! comes late.

use crate::support::{Bench, reference};

const HOPPING: &str = "-- Attempts over five minutes, every minute.
-- Columns:
--   attempts: attempts (count)
SELECT window.start AS window_start, window.end AS window_end, attempts
FROM (
  SELECT hop(interval '1 minute', interval '5 minutes') AS window, sum(attempts) AS attempts
  FROM silver.playback_sessions
  GROUP BY window
) AS minutes
";

/// Every window that holds an attempt, counted from silver by comparing times.
const COUNTED: &str = "SELECT starts.start AS window_start, sum(attempts) AS attempts FROM silver.playback_sessions
 JOIN (SELECT DISTINCT date_bin(interval '1 minute', started_at) - minutes.back AS start FROM silver.playback_sessions
       CROSS JOIN (VALUES (interval '0 minutes'), (interval '1 minute'), (interval '2 minutes'), (interval '3 minutes'),
                          (interval '4 minutes')) AS minutes(back)) AS starts
   ON started_at >= starts.start AND started_at < starts.start + interval '5 minutes'
 GROUP BY 1 ORDER BY 1";

fn bench() -> (Bench, String) {
    let bench = Bench::new();
    bench.write("pipelines/hopping_1m.sql", HOPPING);
    bench.write("alerts/none.txt", "");
    let settings = format!(
        "pipelines: {{folder: {}}}\nalerts: {{folder: {}}}\n",
        bench.path("pipelines").display(),
        bench.path("alerts").display()
    );
    let settings = bench.write("playhead.yaml", settings).display().to_string();
    (bench, settings)
}

#[track_caller]
fn check(bench: &Bench, settings: &str, paths: &[&str]) {
    let output = bench.run(&[&["ingest", "--settings", settings], paths].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ask = |query: &str| {
        let output = bench.run(&["sql", "--json", "--settings", settings, query]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let gold = ask("SELECT window_start, attempts FROM gold.hopping_1m WHERE is_final ORDER BY 1");
    assert!(gold.contains("attempts"), "there is gold: {gold}");
    assert_eq!(gold, ask(COUNTED));
    let widths = ask("SELECT DISTINCT window_end - window_start = interval '5 minutes' AS whole FROM gold.hopping_1m");
    assert_eq!(widths.matches("true").count(), 1, "{widths}");
}

#[test]
fn a_row_counts_in_every_window_that_it_lies_in_also_when_it_comes_late() {
    let (bench, settings) = bench();
    let first = reference("");
    check(&bench, &settings, &[first.to_str().expect("a plain path")]);
    let late = bench.write(
        "late.ndjson",
        "{\"MetricType\":\"PLAY\",\"at\":0,\"user_id\":\"u9\",\"video_id\":\"v9\",\"TimeStamp\":1588752000000}\n",
    );
    check(&bench, &settings, &[late.to_str().expect("a plain path")]);
}

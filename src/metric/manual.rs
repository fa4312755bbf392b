//! The metric table as a manual: `docs/metrics.md`, the terminal, JSON.
//!
//! Made from `METRICS` alone, so that no description can differ from what is computed.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{METRICS, Metric, Section};

const INTRO: &str = "\
# Metrics

Made by `playhead metrics --markdown`; do not edit. Each metric is defined once, in `src/metric.rs`;
alert rules, dashboards and `playhead metrics` read the same table.

## How to read it

* **Formula.** SQL over columns of gold tables (see `tables.md`). It may be taken over any rows of one
  table: a minute, a day, one ISP, everything. Ratios are ratios of sums. A mean of the ratios of
  sessions is another metric and is named `mean_session_...`. Percentiles and distinct counts come
  from merged sketches; never average percentiles, never add distinct counts.
* **Tables.** The endings `_1m`, `_5m`, `_1h` and `_1d` are the length of a window. Take the coarsest
  that suits: those listed give the same figure.
* **Smallest sample.** Below it the value is null, for a thin group says nothing. A share asks for
  50 sessions (at fewer, chance alone may move it by 14 points) or 100 requests, a percentile for ten
  samples beyond it, a share of time for 50 viewer-minutes (milliseconds / 60000).
* **Better.** Which direction is good. `neither` says how much, not how well.
* **Version.** Counts changes of the formula, the edges, the attribution or a setting that it depends
  on (smallest stall 0 ms, background not counted). Compare like versions.
* **Attribution.** Each session or moment is counted in one way, fixed for each metric:

| mode | counted in |
| --- | --- |
| start | the window of the session's first request (attempts, startup, exits and failures before start) |
| overlap | every window that it lies in, with the part that lies there (play time, stalls, bitrate, concurrency) |
| end | the window of the session's end (playback failures, completion, score) |
| now | as overlap, and only the newest window is meant |
| request | the window of the event or the CDN request itself |

A stall across a window's end puts its time into both windows and its count into the first. Figures
of different modes do not refer to the same sessions in a short window; over a day they nearly do.

**The identity.** Over any rows: `attempts = plays + ebvs + vsf + open_attempts`. The tests assert it.
";

const SCORE: &str = "\
The score of one session is `100 x A x U x R x I x Q`, each factor from 0 to 1:

| factor | value | ground |
| --- | --- | --- |
| A availability | 1 played; 0 technical failure before or after the first frame; 0.5 exit before start | as Mux and Conviva |
| U startup | 0.942 ^ max(0, s - 2), s = startup in seconds, of an exit the wait | 5.8 % more viewers leave per second past 2 s (Krishnan and Sitaraman, IMC 2012) |
| R stall time | e ^ (-5.13 x `rebuffer_ratio_conn` of the session) | 1 % of stalling costs 5 % of viewing (same paper) |
| I interruptions | 0.98 ^ min(n, 20), n = connection-induced stalls | our choice: repeated stalls hurt beyond their time |
| Q picture | (1 - 0.3 x (1 - q)) x 0.995 ^ (changes down); q = time-weighted ln(bitrate / lowest) / ln(highest / lowest), clipped; 1 if the ladder is unknown | our choice |

No score: business failure, early exit, bot, attempt still starting, less than 1 s known.

What is missing from 100 is split by the logarithms of the factors: `loss_k = loss x ln F_k / sum of
ln F`; a factor of 0 takes all. Scores and losses are multiples of 2^-20 points, so score and losses
add up to 100 exactly, and sums over sessions are the same in every order. `top_reason` names the
largest loss.
";

/// What the score is worth against opinions of people; `tests/it/score_check.rs` works it out.
pub const SCORE_CHECK: &str = "\
Against the opinions of people. Spearman's rank correlation: 0.32 over 30 sessions, the first of the
Waterloo Streaming QoE Database IV (mean opinion scores; H.264, clips of 28 s; Pearson 0.09; by device:
hdtv 0.38 over 12, phone 0.47 over 9, uhdtv 0.40 over 9). That is weak, and the constants are not tuned
to it. The 30 are mostly nine plays rated on three devices, so they say less than 30 would. In a clip of
28 s one stall of 5 s is 15 % of the time and costs this score over half; the people who rated such clips
forgave it (76 of 100 against our 42), and marked down a low picture far more than the score does
(0.7 Mbit/s: 33 against our 73). The constants rest on when viewers of longer videos leave, not on
ratings of clips. Use the score to compare groups and releases; do not read it as an opinion score.
";

const GOLDEN: &str = "\
## Golden vectors

Any implementation can be checked with these; ours is. Times in seconds, heartbeat 30 s unless said.

| # | timeline | expected |
| --- | --- | --- |
| M1 | request 0, first frame 2, stall 20-30, pause 40-70, finish 102 (60 s clip) | startup 2000; playing 60 000; stall 10 000 x 1; ratio 0.142857; watched 72 000; CTA-2066 stalled 13.89 %; frequency 51.43/h; all quartiles; paused, then finished |
| M2 | request 0, frame 2, stall 55-65, playing to 120, windows of 60 s | first window: playing 53, stall 5, ratio 0.086207, count 1; second: playing 55, stall 5, ratio 0.083333, count 0 |
| M3 | frame 1, seek 30-31.2, buffering 31.2-33, playing 33-60; variant: stall 33.5-34 | stall 0, seek wait 3000; variant: stall 500 seek-induced, ratio 0 |
| M4 | request 0, quit 3.2; or quit 0.6 | exit before start, wait 3200; or early exit |
| M5 | request 0, fatal 4; or the same, then a frame at 6 | technical start failure; or play, startup 6000, 1 recovered error |
| M6 | request 0, frame 1, heartbeats 30 and 60 playing, silence | closed by timeout when event time passes 150; playing 59 000; counted concurrent until 105 |
| M7 | frame 0, stall at 60, silence | stall 30 000 flagged, abandoned in stall |
| M8 | the pair of CTA-5004-B 8.2.5 | stall 1500, flag `ts_order_conflict` |
| M9 | 10 s at 1000, 30 s at 3000, pause 20 s, 20 s at 3000 kbit/s at double speed | average 2750; by the wall clock 2666.67; 1 switch up |
| M10 | `bsa=(3;v) bsda=(4150;v)` at the end, only one `bsd=(1200)` received | stall 4150, count 3, flag `counter_reconciled` |
| M11 | A 0-100, B 50-150, C 90-95, window 0-150 | peak 3, average 1.366667, 3 sessions |
| M12 | startup 4, connection-induced ratio 0.02, 2 stalls, ladder unknown | score 76.91; lost to startup 10.51, stall time 9.02, interruptions 3.55 |
| M13 | pause at 595.2, stop 5 ms later | no deliberate pause; finished |
| M14 | background 100-400 with one report gap of 250 | background 300, stall 0, playing unaffected |
| M15 | M1 delivered shuffled, each record twice, the last one 23 h late | identical to M1 |
";

/// The text of `docs/metrics.md`. `score_check` is the paragraph on what the score is worth.
pub fn manual_markdown(score_check: &str) -> String {
    let mut text = INTRO.to_owned();
    for section in Section::ALL {
        text += &format!("\n## {}\n", section.title());
        if section == Section::Experience {
            text += &format!("\n{SCORE}\n{score_check}");
        }
        for metric in METRICS.iter().filter(|metric| metric.section == section) {
            text += &markdown_of(metric);
        }
    }
    text + "\n" + GOLDEN
}

fn markdown_of(metric: &Metric) -> String {
    let Metric { name, title, help, .. } = metric;
    let facts = facts(metric).map(|(label, value)| match label {
        "read from" | "null where" => format!("* {label}: `{}`", value.replace(", ", "`, `")),
        _ => format!("* {label}: {value}"),
    });
    let formula = metric.formula();
    format!(
        "\n### `{name}`\n\n{title}. {help}\n\n```sql\n{formula}\n```\n\n{}\n",
        facts.collect::<Vec<_>>().join("\n")
    )
}

/// What there is to say of a metric besides its formula and its text.
fn facts(metric: &Metric) -> impl Iterator<Item = (&'static str, String)> {
    let sample = match metric.min_samples {
        0 => None,
        min => Some(("null where", format!("{} < {min}", metric.samples))),
    };
    let first = [
        ("unit", metric.unit.as_str().to_owned()),
        ("better", metric.better.as_str().to_owned()),
        ("attribution", metric.mode.as_str().to_owned()),
        ("version", metric.def_version.to_string()),
    ];
    let last = [("read from", metric.tables().join(", ")), ("source", metric.source.to_owned())];
    first.into_iter().chain(sample).chain(last)
}

/// One line a metric, by subject, for the terminal.
pub fn manual_text() -> String {
    let mut text = String::new();
    let width = METRICS.iter().map(|metric| metric.name.len()).max().unwrap_or(0);
    for section in Section::ALL {
        let gap = if text.is_empty() { "" } else { "\n" };
        text += &format!("{gap}{}\n", section.title());
        for metric in METRICS.iter().filter(|metric| metric.section == section) {
            let Metric { name, title, unit, .. } = metric;
            text += &format!("  {name:width$}  {title} [{}]\n", unit.as_str());
        }
    }
    text
}

/// All about one metric, for the terminal.
pub fn metric_text(metric: &Metric) -> String {
    let Metric { name, title, help, .. } = metric;
    let mut text = format!("{name}: {title}\n\n");
    text += &wrapped(help);
    let formula = [("formula", metric.formula()), ("sql", metric.sql())];
    text.push('\n');
    for (label, value) in formula.into_iter().chain(facts(metric)) {
        writeln!(text, "{label:11}  {value}").expect("a text takes every line");
    }
    text
}

/// Lines of at most 100 characters: what a terminal shows without breaking words.
fn wrapped(paragraph: &str) -> String {
    const WIDTH: usize = 100;
    let mut text = String::new();
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        if column > 0 && column + 1 + word.len() > WIDTH {
            text.push('\n');
            column = 0;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text += word;
        column += word.len();
    }
    text + "\n"
}

/// The whole table, for programs.
pub fn to_json() -> Value {
    METRICS.iter().map(json_of).collect()
}

/// One metric of it.
pub fn json_of(metric: &Metric) -> Value {
    json!({
        "name": metric.name,
        "title": metric.title,
        "section": metric.section.title(),
        "unit": metric.unit.as_str(),
        "better": metric.better.as_str(),
        "def_version": metric.def_version,
        "attribution": metric.mode.as_str(),
        "formula": metric.formula(),
        "sql": metric.sql(),
        "tables": metric.tables(),
        "min_samples": metric.min_samples,
        "samples": metric.samples,
        "help": metric.help,
        "source": metric.source,
    })
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;

    #[test]
    fn the_manual_holds_every_metric_once_and_in_order() {
        let manual = manual_markdown("what people say\n");
        let headings: Vec<&str> = manual.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        let names: Vec<String> = METRICS.iter().map(|metric| format!("`{}`", metric.name)).collect();
        assert_eq!(headings, names);
        assert!(manual.contains("\nwhat people say\n"));
        assert_eq!(manual.lines().filter(|line| line.starts_with("| M")).count(), 15);
    }

    #[test]
    fn a_metric_reads_as_formula_facts_and_text() {
        let metric = find("vsf_ratio").expect("it is in the table");
        let expected = "
### `vsf_ratio`

Video start failures over attempts. Share of attempts that a fatal error ended before the first frame, technical and business together.

```sql
sum(start_failures) / sum(attempts)
```

* unit: ratio
* better: lower
* attribution: start
* version: 1
* null where: `sum(attempts) < 50`
* read from: `gold.playback_1m`, `gold.playback_5m`, `gold.playback_1h`, `gold.playback_1d`
* source: Conviva (VSF), R4WG20 issue 4
";
        assert_eq!(markdown_of(metric), expected);
    }

    #[test]
    fn the_terminal_shows_a_line_a_metric_and_all_of_one() {
        let text = manual_text();
        assert_eq!(text.lines().filter(|line| line.starts_with("  ")).count(), METRICS.len());
        let one = metric_text(find("rebuffer_ratio").expect("it is in the table"));
        assert!(one.starts_with("rebuffer_ratio: Rebuffering ratio\n\nStall time over"), "{one}");
        assert!(
            one.contains("\nsql          CASE WHEN (sum(playing_ms) + sum(stall_ms)) / 60000 >= 50 THEN"),
            "{one}"
        );
        let (_, help) = one.split_once("\n\n").expect("a blank line");
        let (help, _) = help.split_once("\n\n").expect("another");
        assert!(help.lines().all(|line| line.len() <= 100), "{help}");
    }

    #[test]
    fn programs_get_the_formula_and_the_sql() {
        let json = to_json();
        let list = json.as_array().expect("a list");
        assert_eq!(list.len(), METRICS.len());
        let attempts = &list[0];
        assert_eq!((&attempts["name"], &attempts["sql"]), (&json!("attempts"), &json!("sum(attempts)")));
        assert_eq!(attempts["tables"][3], "gold.playback_1d");
    }
}

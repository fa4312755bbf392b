//! The demo's audience: what is planted when, its history, and its lines as time goes by.
//!
//! Invariant: an incident that the shipped alerts can find is going on when the demo starts, and another
//! begins within its first two minutes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch as signal;

use crate::clock::Clock;
use crate::simulate::{Arrivals, CDN_HEADER, Curve, Dialect, Fault, Output, Planted, Simulation};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 86_400_000;

/// How long the audience goes on: raw events and logs of so many hours take some 2 GB at the usual rate.
const LIVE_HOURS: i64 = 3;
/// What has happened is written this often.
const WRITE_EVERY: Duration = Duration::from_millis(200);
/// The evening's peak lies this much after the start.
const PEAK_AFTER_MS: i64 = 2 * HOUR_MS;
/// After those of the beginning, this is how often something goes wrong, and for how long.
const TROUBLE_EVERY_MINUTES: i64 = 15;
const TROUBLE_MINUTES: i64 = 10;
/// "Usual" of the CDN's alert is taken from the same hour of at least three days before.
const EARLIER_DAYS: i64 = 4;
/// Requests of one minute of each such hour are enough for a mean.
const EARLIER_ATTEMPTS: u32 = 300;

/// How event time goes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub began_ms: i64,
    pub speed: i64,
}

impl Pace {
    /// The audience's time when the clock says this.
    pub fn event_ms(&self, now_ms: i64) -> i64 {
        self.began_ms + (now_ms - self.began_ms) * self.speed
    }
}

/// Who watches.
pub struct Audience {
    simulation: Simulation,
    pace: Pace,
}

impl Audience {
    pub fn new(seed: u64, attempts_per_minute: u32, history_minutes: i64, pace: Pace) -> Audience {
        let now_minute_ms = pace.began_ms.div_euclid(MINUTE_MS) * MINUTE_MS;
        let start_ms = now_minute_ms - history_minutes * MINUTE_MS;
        let span_ms = history_minutes * MINUTE_MS + LIVE_HOURS * HOUR_MS;
        let curve = Curve::Daily {
            peak_ms: (pace.began_ms + PEAK_AFTER_MS).rem_euclid(DAY_MS),
        };
        let simulation = Simulation {
            seed,
            sessions: curve.sessions_at_peak(start_ms, span_ms, attempts_per_minute),
            start_ms,
            span_ms,
            curve,
            lifelike: true,
            dialect: Dialect::Reference,
            incidents: planted(now_minute_ms),
        };
        Audience { simulation, pace }
    }

    pub fn incidents(&self) -> Vec<Planted> {
        self.simulation.incidents.clone()
    }

    /// Writes what lies before the start, then goes on as the clock goes until `stop` is set.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn start(self, folder: &Path, clock: Arc<dyn Clock>, stop: signal::Receiver<bool>) -> anyhow::Result<Live> {
        std::fs::create_dir_all(folder)?;
        let create = |name: &str| File::create(folder.join(name)).map(BufWriter::new);
        let mut writer = Writer {
            player: create("player.ndjson")?,
            cdn: create("cdn.tsv")?,
            arrivals: self.simulation.arrivals(),
            next: None,
            text: Vec::new(),
        };
        writer.cdn.write_all(CDN_HEADER.as_bytes())?;
        self.write_earlier_days(&mut writer.cdn)?;
        writer.write_until(self.pace.began_ms)?;
        let pace = self.pace;
        let thread = std::thread::Builder::new().name("audience".to_owned()).spawn(move || {
            // A signal that can no longer come has come.
            while stop.has_changed().is_ok() && !*stop.borrow() {
                writer.write_until(pace.event_ms(clock.now_ms()))?;
                std::thread::sleep(WRITE_EVERY);
            }
            Ok(())
        })?;
        Ok(Live { thread })
    }

    /// Requests of a minute in each of the hours that the demo may see, of some days before.
    fn write_earlier_days(&self, cdn: &mut impl Write) -> io::Result<()> {
        let hour_ms = self.pace.began_ms.div_euclid(HOUR_MS) * HOUR_MS;
        let mut text = Vec::new();
        for day in (1..=EARLIER_DAYS).rev() {
            for hour in 0..=LIVE_HOURS {
                let start_ms = hour_ms - day * DAY_MS + hour * HOUR_MS;
                // Tomorrow's hours are none of yesterday's history.
                if start_ms + MINUTE_MS > self.simulation.start_ms {
                    continue;
                }
                let calm = Simulation {
                    seed: self.simulation.seed ^ start_ms.unsigned_abs(),
                    sessions: EARLIER_ATTEMPTS,
                    start_ms,
                    span_ms: MINUTE_MS,
                    curve: Curve::Even,
                    lifelike: true,
                    dialect: Dialect::Reference,
                    incidents: Vec::new(),
                };
                let mut arrivals = calm.arrivals();
                while let Some(line) = arrivals.next_line(&mut text).filter(|line| line.time_ms < start_ms + MINUTE_MS) {
                    if line.output == Output::Cdn {
                        cdn.write_all(&text)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// An ISP that has been congested for a while, a release that has begun to fail minutes ago, a POP that slows
/// soon; then one thing after the other.
fn planted(now_minute_ms: i64) -> Vec<Planted> {
    let from = |fault: Fault, from: i64, minutes: i64| {
        let from_ms = now_minute_ms + from * MINUTE_MS;
        Planted::new(fault, from_ms, from_ms + minutes * MINUTE_MS)
    };
    let mut planted = vec![
        // Its alert looks at a quarter of an hour and waits for another.
        from(Fault::IspStalls, -22, 30),
        // Its alert wants to be sure, then waits for two minutes.
        from(Fault::AppStartFailures, -5, 15),
        from(Fault::CdnSlowFirstByte, 1, 14),
    ];
    let later = [
        Fault::OriginMelts,
        Fault::TitleBroken,
        Fault::AppStartFailures,
        Fault::CdnSlowFirstByte,
    ];
    let minutes = (25..LIVE_HOURS * 60).step_by(TROUBLE_EVERY_MINUTES as usize);
    planted.extend(
        minutes
            .zip(later.into_iter().cycle())
            .map(|(minute, fault)| from(fault, minute, TROUBLE_MINUTES)),
    );
    planted
}

/// The audience as it goes on.
pub struct Live {
    thread: JoinHandle<io::Result<()>>,
}

impl Live {
    /// Waits for the last lines; the stop signal has been given.
    ///
    /// # Errors
    /// A line could not be written.
    pub fn finish(self) -> anyhow::Result<()> {
        let written = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written.context("the audience's events cannot be written; is the disk full?")
    }
}

/// Lines of a simulation into two files.
struct Writer {
    player: BufWriter<File>,
    cdn: BufWriter<File>,
    arrivals: Arrivals,
    /// What comes next, its text in `text`.
    next: Option<(i64, Output)>,
    text: Vec<u8>,
}

impl Writer {
    /// Writes every line up to this event time; whole lines reach the files.
    fn write_until(&mut self, until_ms: i64) -> io::Result<()> {
        loop {
            if self.next.is_none() {
                let line = self.arrivals.next_line(&mut self.text);
                self.next = line.map(|line| (line.time_ms, line.output));
            }
            let Some((_, output)) = self.next.filter(|(time_ms, _)| *time_ms <= until_ms) else {
                break;
            };
            match output {
                Output::Player => self.player.write_all(&self.text)?,
                Output::Cdn => self.cdn.write_all(&self.text)?,
            }
            self.next = None;
        }
        self.player.flush()?;
        self.cdn.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    /// 2026-03-01 20:15:30 UTC.
    const NOW_MS: i64 = 1_772_396_130_000;

    fn audience(speed: i64) -> Audience {
        let pace = Pace { began_ms: NOW_MS, speed };
        Audience::new(1, 20, 5, pace)
    }

    #[test]
    fn one_incident_is_going_on_and_the_next_begins_within_two_minutes() {
        let incidents = audience(1).incidents();
        assert!(incidents.iter().any(|planted| planted.is_at(Fault::AppStartFailures, NOW_MS)));
        let soon = |planted: &&Planted| (NOW_MS..NOW_MS + 2 * MINUTE_MS).contains(&planted.from_ms);
        assert_eq!(incidents.iter().filter(soon).count(), 1);
        let last_ms = incidents.iter().map(|planted| planted.from_ms).max();
        assert!(last_ms > Some(NOW_MS + 2 * HOUR_MS), "nothing goes wrong later");
    }

    #[test]
    fn history_is_written_before_the_start_and_the_rest_as_the_clock_goes() {
        let bench = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW_MS));
        let (tell, stop) = signal::channel(false);
        let live = audience(10)
            .start(bench.path(), Arc::clone(&clock) as Arc<dyn Clock>, stop)
            .unwrap();
        let last_ms = || {
            let text = std::fs::read_to_string(bench.path().join("player.ndjson")).unwrap();
            let (whole, _) = text.rsplit_once('\n').unwrap();
            let time_ms = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["TimeStamp"].as_i64();
            whole.lines().filter_map(time_ms).max().unwrap()
        };
        assert!((NOW_MS - MINUTE_MS..=NOW_MS).contains(&last_ms()));
        // Three seconds of the clock are thirty of the audience.
        clock.advance(3_000);
        while last_ms() < NOW_MS + 20_000 {
            std::thread::yield_now();
        }
        assert!(last_ms() <= NOW_MS + 30_000);
        tell.send(true).unwrap();
        live.finish().unwrap();
        let cdn = std::fs::read_to_string(bench.path().join("cdn.tsv")).unwrap();
        for day in ["2026-02-25\t20:", "2026-02-28\t20:", "2026-03-01\t20:1"] {
            assert!(cdn.contains(day), "{day}");
        }
    }
}

//! `playhead simulate`: an audience into files, to standard output or to an HTTP receiver, at once or as the
//! clock goes.

mod target;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::EXIT_USAGE;
use crate::clock::{Clock, SystemClock};
use crate::simulate::{Curve, Dialect, Fault, Planted, Simulation, Truth};
use target::Target;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;
/// What a simulation starts at, unless it follows the clock: 2026-01-01 00:00 UTC, the same on every day.
const START_S: i64 = 1_767_225_600;
/// Player events of a session, about: what `--rate` is turned into sessions by.
const EVENTS_A_SESSION: u32 = 25;
/// With `--rate`, what has happened is sent this often.
const SEND_EVERY: Duration = Duration::from_millis(100);

/// What to simulate, and whereto.
#[derive(Args)]
pub struct SimulateArgs {
    /// Folder for player.ndjson, cdn.tsv and truth.json; `-` for the players' events to standard output, or
    /// http://HOST:PORT to post them there.
    #[arg(value_name = "FOLDER|-|URL")]
    to: String,
    #[arg(long, default_value_t = 1000)]
    sessions: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Start of the span, epoch seconds; default: 1767225600, with --rate now.
    #[arg(long)]
    start: Option<i64>,
    /// Length of the span, minutes.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(i64).range(1..=5_256_000))]
    minutes: i64,
    /// Plant an ISP, a device and a POP incident, mild ones, into the middle third.
    #[arg(long)]
    incident: bool,
    /// Plant an incident: isp_stalls, app_start_failures, cdn_slow_first_byte, title_broken or origin_melts,
    /// from minute FROM of the span, so many minutes long; may be given more than once.
    #[arg(long, value_name = "NAME@FROM+MINUTES", value_parser = plant)]
    plant: Vec<Plant>,
    /// What the players speak: reference, cmcd (version 2), epas or ivs.
    #[arg(long, default_value = "reference", value_parser = dialect)]
    dialect: Dialect,
    /// As audiences are: the curve of a day, titles by Zipf's law, ISPs and devices that differ, events that come
    /// late, twice and out of order. Without it sessions are spread evenly and everything comes in order.
    #[arg(long)]
    lifelike: bool,
    /// The hour of the day (UTC) in which most watch, with --lifelike.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(0..=23))]
    peak_hour: i64,
    /// Follow the clock with about so many player events a second, instead of --sessions.
    #[arg(long, value_name = "EVENTS_PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Where the truth is written; default: truth.json in the folder, otherwise nowhere.
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
}

/// An incident of the command line, in minutes from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plant {
    fault: Fault,
    from_minute: i64,
    minutes: i64,
}

fn plant(text: &str) -> Result<Plant, String> {
    let parts = || {
        let (name, when) = text.split_once('@')?;
        let (from, minutes) = when.split_once('+')?;
        Some((name, from.parse().ok()?, minutes.parse().ok().filter(|minutes| *minutes > 0)?))
    };
    let (name, from_minute, minutes) = parts().ok_or("write NAME@FROM+MINUTES, such as isp_stalls@20+10")?;
    let fault = Fault::named(name).ok_or_else(|| {
        let names = Fault::ALL.map(Fault::name);
        format!("no incident `{name}`; there are {}", names.join(", "))
    })?;
    Ok(Plant {
        fault,
        from_minute,
        minutes,
    })
}

fn dialect(text: &str) -> Result<Dialect, String> {
    let names = Dialect::ALL.map(Dialect::name);
    Dialect::named(text).ok_or_else(|| format!("no dialect `{text}`; there are {}", names.join(", ")))
}

/// Writes everything and says how much it was; returns the exit code.
///
/// # Errors
/// The target cannot be written.
pub fn run(arguments: &SimulateArgs) -> anyhow::Result<u8> {
    let clock = SystemClock;
    let simulation = arguments.simulation(clock.now_ms());
    let mut target = match Target::open(&arguments.to, simulation.dialect) {
        Ok(target) => target,
        Err(target::OpenError::Usage(complaint)) => {
            eprintln!("playhead: {complaint}");
            return Ok(EXIT_USAGE);
        }
        Err(target::OpenError::Io(error)) => return Err(error),
    };
    let truth = match arguments.rate {
        None => at_once(&simulation, &mut target)?,
        Some(_) => by_the_clock(&simulation, &mut target, &clock)?,
    };
    if let Some(file) = arguments.truth.clone().or_else(|| target.truth_file()) {
        std::fs::write(file, serde_json::to_string_pretty(&truth)?)?;
    }
    let told = format!(
        "{} player events and {} CDN requests of {} sessions in {}",
        truth.events + truth.duplicates,
        truth.cdn_requests,
        truth.sessions,
        arguments.to
    );
    match arguments.to.as_str() {
        // Standard output is the events' own.
        "-" => eprintln!("{told}"),
        _ => println!("{told}"),
    }
    Ok(0)
}

impl SimulateArgs {
    fn simulation(&self, now_ms: i64) -> Simulation {
        let default_ms = self.rate.map_or(START_S * 1_000, |_| now_ms);
        let (start_ms, span_ms) = (self.start.map_or(default_ms, |seconds| seconds * 1_000), self.minutes * MINUTE_MS);
        let curve = match self.lifelike {
            true => Curve::Daily {
                peak_ms: self.peak_hour * HOUR_MS,
            },
            false => Curve::Even,
        };
        let sessions = match self.rate {
            None => self.sessions,
            Some(rate) => {
                let sessions = i64::from(rate) * self.minutes * 60 / i64::from(EVENTS_A_SESSION);
                u32::try_from(sessions).unwrap_or(u32::MAX)
            }
        };
        let (from_ms, to_ms) = Simulation::middle_third(start_ms, span_ms);
        let mut incidents = if self.incident {
            Planted::three(from_ms, to_ms)
        } else {
            Vec::new()
        };
        incidents.extend(self.plant.iter().map(|plant| {
            let from_ms = start_ms + plant.from_minute * MINUTE_MS;
            Planted::new(plant.fault, from_ms, from_ms + plant.minutes * MINUTE_MS)
        }));
        Simulation {
            seed: self.seed,
            sessions,
            start_ms,
            span_ms,
            curve,
            lifelike: self.lifelike,
            dialect: self.dialect,
            incidents,
        }
    }
}

fn at_once(simulation: &Simulation, target: &mut Target) -> anyhow::Result<Truth> {
    let mut arrivals = simulation.arrivals();
    let mut text = Vec::new();
    while let Some(line) = arrivals.next_line(&mut text) {
        target.put(line.output, &text)?;
    }
    target.flush()?;
    Ok(arrivals.into_truth())
}

/// Every line when its time has come.
fn by_the_clock(simulation: &Simulation, target: &mut Target, clock: &dyn Clock) -> anyhow::Result<Truth> {
    let mut arrivals = simulation.arrivals();
    let mut text = Vec::new();
    while let Some(line) = arrivals.next_line(&mut text) {
        while clock.now_ms() < line.time_ms {
            target.flush()?;
            std::thread::sleep(SEND_EVERY);
        }
        target.put(line.output, &text)?;
    }
    target.flush()?;
    Ok(arrivals.into_truth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_is_named_with_its_minutes() {
        let found = plant("origin_melts@20+10");
        let expected = Plant {
            fault: Fault::OriginMelts,
            from_minute: 20,
            minutes: 10,
        };
        assert_eq!(found, Ok(expected));
        assert!(plant("fire@1+2").unwrap_err().contains("there are isp_stalls, "));
        for wrong in ["isp_stalls", "isp_stalls@3", "isp_stalls@3+0", "isp_stalls@x+1"] {
            assert!(plant(wrong).unwrap_err().contains("NAME@FROM+MINUTES"), "{wrong}");
        }
    }
}

//! Every question of every dashboard over a month of gold: how long a reader waits.
//!
//! ```text
//! cargo bench --bench desk
//! ```
//! The goal is 300 ms at the median and 1 s for 99 of 100, over 30 days of one-minute gold with 200 combinations of
//! dimensions. One simulated day is ingested, then put down again for each day before it, in every gold table; that
//! takes minutes and gigabytes, and stays in `target/tmp/desk-lake` for the next time. Each question is asked as the
//! page asks it (all choices, its window by the time range), first over the last 3 hours, then over all 30 days.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Date32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::prelude::SessionContext;
use playhead::clock::{Clock, ManualClock};
use playhead::config::{self, Config};
use playhead::daemon::{self, Progress};
use playhead::ingest::Counts;
use playhead::lake::place::Place;
use playhead::lake::tables::TableSpec;
use playhead::lake::{Commit, Lake};
use playhead::notify::Terminal;
use playhead::serve::dashboard::{Chosen, Dashboard, Hide, PanelKind, Scope, Variable, VariableKind, expand};
use playhead::serve::desk::Desk;
use playhead::simulate::{Curve, Dialect, Simulation};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const DAYS: i64 = 30;
const DAY_MS: i64 = 86_400_000;
/// 2026-01-30T00:00:00Z: the day that is simulated is the last of the 30.
const LAST_DAY_MS: i64 = 1_769_731_200_000;
const END_MS: i64 = LAST_DAY_MS + DAY_MS;
/// So many that about 200 rows of a minute stand in `gold.playback_1m`.
const SESSIONS: u32 = 60_000;
/// A question is asked so often; a reader's first question finds nothing in memory, the others do.
const TIMES: usize = 3;
const RANGES: [(&str, i64); 2] = [("3 hours", 3 * 3_600_000), ("30 days", DAYS * DAY_MS)];

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("desk-lake");
        let config = config_of(&folder);
        if !folder.join("READY").exists() {
            a_month(&folder, &config).await;
            std::fs::write(folder.join("READY"), "").expect("the folder takes it");
        }
        ask_all(&folder, &config).await;
    });
}

fn config_of(folder: &Path) -> Config {
    let text = format!(
        "data: {:?}\nsources: [{{path: {:?}}}]\nupkeep: {{bronze_days: 0, silver_days: 0, gold_days: 0, rejects_days: 0}}\n",
        folder.join("lake").display().to_string(),
        folder.join("day").display().to_string(),
    );
    config::parse(&[("bench".to_owned(), text)], &|_| None, &|_| false).expect("settings")
}

struct Silent;

impl Progress for Silent {
    fn epoch(&mut self, _: Counts, _: u64, _: u64) {}
}

/// One day through the front door, then 29 shifted ones.
async fn a_month(folder: &Path, config: &Config) {
    let _ = std::fs::remove_dir_all(folder);
    let day = folder.join("day");
    std::fs::create_dir_all(&day).expect("a folder");
    let simulation = Simulation {
        seed: 30,
        sessions: SESSIONS,
        start_ms: LAST_DAY_MS,
        span_ms: DAY_MS,
        curve: Curve::Even,
        lifelike: true,
        dialect: Dialect::Reference,
        incidents: Vec::new(),
    };
    let file = |name: &str| std::io::BufWriter::new(std::fs::File::create(day.join(name)).expect("a file"));
    simulation
        .run(&mut file("player.ndjson"), &mut file("cdn.tsv"))
        .expect("it is written");
    let clock = Arc::new(ManualClock::at(END_MS));
    let began = Instant::now();
    daemon::ingest_once(config, Arc::clone(&clock) as Arc<dyn Clock>, Terminal::Errors, &mut Silent)
        .await
        .expect("it is ingested");
    println!("a day ingested in {:.0} s", began.elapsed().as_secs_f64());
    let lake = Lake::open(place(folder), clock).await.expect("the lake");
    for spec in gold(config).await {
        let name = spec.name.clone();
        lake.ensure(spec).await.expect("the table");
        let (began, rows) = (Instant::now(), a_day_again(&lake, &name).await);
        println!("{name}: {rows} rows a day, {:.0} s", began.elapsed().as_secs_f64());
    }
}

fn place(folder: &Path) -> Place {
    Place::folder(&folder.join("lake")).expect("a place")
}

async fn gold(config: &Config) -> Vec<TableSpec> {
    daemon::gold_specs(&daemon::pipelines(config).expect("pipelines"))
        .await
        .expect("tables")
}

/// Appends the rows of a table's day to each day before; gives how many there are of a day.
async fn a_day_again(lake: &Lake, name: &str) -> usize {
    let context = SessionContext::new();
    let table = lake.provider(&context, name).await.expect("the table");
    let rows = context.read_table(table).expect("a plan").collect().await.expect("its rows");
    for back in 1..DAYS {
        let shifted = rows.iter().map(|batch| shifted(batch, back)).collect();
        lake.append(name, shifted, Commit::default()).await.expect("it takes them");
    }
    rows.iter().map(RecordBatch::num_rows).sum()
}

fn shifted(batch: &RecordBatch, days: i64) -> RecordBatch {
    let schema = batch.schema();
    let column = |(field, column): (&arrow::datatypes::FieldRef, &ArrayRef)| match (field.name().as_str(), column.data_type()) {
        ("event_date", _) => {
            let dates = cast(column, &DataType::Date32).expect("a date");
            let dates: &Date32Array = dates.as_any().downcast_ref().expect("a date");
            let earlier: Date32Array = dates.unary(|date| date - days as i32);
            cast(&earlier, column.data_type()).expect("a date")
        }
        (_, DataType::Timestamp(_, _)) => {
            let times = cast(column, &DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None)).expect("a time");
            let times: &TimestampMicrosecondArray = times.as_any().downcast_ref().expect("a time");
            let earlier: TimestampMicrosecondArray = times.unary(|time| time - days * DAY_MS * 1_000);
            cast(&earlier, column.data_type()).expect("a time")
        }
        _ => Arc::clone(column),
    };
    let columns = schema.fields().iter().zip(batch.columns()).map(column).collect();
    RecordBatch::try_new(schema, columns).expect("the same shape")
}

/// One question, and what it took, ms.
struct Took {
    place: String,
    first_ms: f64,
    again_ms: f64,
}

async fn ask_all(folder: &Path, config: &Config) {
    let lake = Arc::new(Lake::open_read_only(place(folder)).await.expect("the lake"));
    let pipelines = daemon::pipelines(config).expect("pipelines");
    let clock = Arc::new(ManualClock::at(END_MS));
    let limits = daemon::query_limits(config);
    let desk = Desk::new(lake, pipelines, limits, clock).expect("a desk");
    let dashboards = daemon::dashboards(config).expect("dashboards").readable;
    for (told, range_ms) in RANGES {
        let mut took = Vec::new();
        for (file, dashboard) in &dashboards {
            ask(&desk, file, dashboard, range_ms, &mut took).await;
        }
        tell(told, took);
    }
}

async fn ask(desk: &Desk, file: &str, dashboard: &Dashboard, range_ms: i64, took: &mut Vec<Took>) {
    let scope = scope(desk, dashboard, range_ms).await;
    for panel in dashboard.panels.iter().filter(|panel| panel.kind != PanelKind::Text) {
        for target in &panel.targets {
            let sql = expand(&target.raw_sql, &scope).expect("it is complete");
            let mut each_ms = Vec::new();
            for _ in 0..TIMES {
                let began = Instant::now();
                let answer = desk.query(&sql).await;
                answer.unwrap_or_else(|error| panic!("{file}, {}: {error}\n{sql}", panel.title));
                each_ms.push(milliseconds(began.elapsed()));
            }
            took.push(Took {
                place: format!("{file}, {} {}", panel.title, target.ref_id),
                first_ms: each_ms[0],
                again_ms: each_ms[1..].iter().sum::<f64>() / (TIMES - 1) as f64,
            });
        }
    }
}

/// All choices, and what the hidden variables (the length of a window) come to.
async fn scope(desk: &Desk, dashboard: &Dashboard, range_ms: i64) -> Scope {
    let mut scope = dashboard.first_scope(END_MS - range_ms, END_MS);
    let hidden = |variable: &&Variable| variable.hide == Hide::Variable && variable.kind == VariableKind::Query;
    for variable in dashboard.variables.iter().filter(hidden) {
        let sql = expand(&variable.query, &scope).expect("it is complete");
        let answer = desk.query(&sql).await.expect("an answer");
        let text = cast(answer.batches[0].column(0), &DataType::Utf8).expect("a text");
        let text: &StringArray = text.as_any().downcast_ref().expect("a text");
        scope.variables.insert(variable.name.clone(), Chosen::One(text.value(0).to_owned()));
    }
    scope
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1_000.0
}

fn tell(range: &str, mut took: Vec<Took>) {
    println!("\nover {range}: {} questions", took.len());
    let first_ms = took.iter().map(|took| took.first_ms).collect();
    let again_ms = took.iter().map(|took| took.again_ms).collect();
    for (kind, mut sorted) in [("first", first_ms), ("again", again_ms)] {
        let sorted: &mut Vec<f64> = &mut sorted;
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
        println!(
            "  {kind}: median {:.0} ms, p95 {:.0} ms, p99 {:.0} ms, most {:.0} ms",
            at(0.5),
            at(0.95),
            at(0.99),
            at(1.0)
        );
    }
    took.sort_by(|one, other| other.again_ms.total_cmp(&one.again_ms));
    for slow in took.iter().take(8) {
        println!("  {:>6.0} ms again, {:>6.0} first: {}", slow.again_ms, slow.first_ms, slow.place);
    }
}

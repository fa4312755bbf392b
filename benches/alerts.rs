//! Alert rules as the daemon judges them when a minute closes: gold in a lake, a thousand rules, ten thousand series.
//!
//! ```text
//! cargo bench --bench alerts
//! ```
//! The goals: one second a window on two cores; the cause in 50 ms over 100,000 rows of dimensions and in a second
//! over two million.
//! Timed is `Watch::run` for one closed minute: the questions to the
//! Delta tables, the judging, and the commit. Every hundredth series breaches, without ever firing (`for: 7d`).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use divan::Bencher;
use divan::counter::ItemsCount;
use playhead::alert::cause::{Answer, Counts, Kind, Rows, Search, explain};
use playhead::clock::ManualClock;
use playhead::daemon;
use playhead::lake::place::Place;
use playhead::lake::tables::TableSpec;
use playhead::lake::{Commit, Lake};
use playhead::sql::QueryLimits;
use playhead::sql::pipeline::{Pipeline, parse_all};
use playhead::watch::{Reached, Watch};
use playhead::{builtin, rollup};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const TABLE: &str = "gold.errors_1m";
/// 2026-01-01T00:00:00Z, in minutes.
const FIRST_MINUTE: i64 = 29_453_760;
const MINUTE_MS: i64 = 60_000;
const RULES: usize = 1_000;
const SERIES_OF_A_RULE: usize = 10;
const LIMITS: QueryLimits = QueryLimits {
    memory_bytes: 512 << 20,
    timeout: Duration::from_secs(30),
};

fn main() {
    divan::main();
}

/// A rule an app: each has a `where` of its own and looks at ten of the ten thousand series.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn a_thousand_rules_with_ten_series_each(bencher: Bencher) {
    let rule = |number: usize| {
        format!(
            "  - {{alert: Rule{number}, from: {TABLE}, value: {{ratio: {{num: clients_with_errors, den: clients}}}}, \
             where: \"app_name = 'app-{number}'\", group_by: [device_type], window: 5m, min_samples: 100, condition: \"> 5%\", for: 7d}}\n"
        )
    };
    judge(bencher, &(0..RULES).map(rule).collect::<String>());
}

/// Ten rules over all series: as many readings of a series, fewer questions.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn ten_rules_with_ten_thousand_series_each(bencher: Bencher) {
    let rule = |number: usize| {
        format!(
            "  - {{alert: Rule{number}, from: {TABLE}, value: {{ratio: {{num: clients_with_errors, den: clients}}}}, \
             group_by: [app_name, device_type], window: 5m, min_samples: 100, condition: \"> {}%\", for: 7d}}\n",
            number + 5
        )
    };
    judge(bencher, &(0..10).map(rule).collect::<String>());
}

/// Eight dimensions, from three values to a thousand, and one fault of two values among them.
#[divan::bench(args = [100_000, 2_000_000], sample_count = 5, sample_size = 1)]
fn the_cause_over_so_many_rows(bencher: Bencher, count: usize) {
    let rows = combinations(count);
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        let found = explain(&rows, Search::new(Kind::Share));
        assert_eq!(found.answer, Answer::Found);
        found
    });
}

fn combinations(count: usize) -> Rows {
    const DIMS: [(&str, usize); 8] = [
        ("cdn", 3),
        ("pop", 60),
        ("isp", 200),
        ("country", 30),
        ("device_type", 6),
        ("os", 12),
        ("app_version", 25),
        ("content_id", 1_000),
    ];
    let mut rows = Rows::new(&DIMS.map(|(name, _)| name)).expect("they are eight");
    let mut ids = Vec::new();
    for (dimension, (name, values)) in DIMS.into_iter().enumerate() {
        let mut of_dimension = Vec::new();
        for value in 0..values {
            let id = rows.intern(dimension, Some(&format!("{name}-{value}")));
            of_dimension.push(id.expect("they are few"));
        }
        ids.push(of_dimension);
    }
    for row in 0..count {
        let mut key = row;
        let mut places = [0; 8];
        for (place, (_, values)) in places.iter_mut().zip(DIMS) {
            // The finish of splitmix64 spreads the rows over the combinations.
            key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *place = (mixed ^ (mixed >> 27)) % values;
        }
        let is_hit = places[0] == 1 && places[4] == 2;
        let counts = Counts {
            num: if is_hit { 4.0 } else { f64::from(u8::from(row % 5 == 0)) },
            den: 20.0,
            samples: 20.0,
            base_num: 1.0,
            base_den: 100.0,
        };
        let values: Vec<_> = ids.iter().zip(places).map(|(ids, place)| ids[place]).collect();
        rows.push(&values, counts).expect("they are fewer than a search takes");
    }
    rows
}

fn judge(bencher: Bencher, rules: &str) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be had");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let bench = RefCell::new(runtime.block_on(Judged::open(&folder, &format!("version: 1\nrules:\n{rules}"))));
    bencher
        .counter(ItemsCount::new(RULES * SERIES_OF_A_RULE))
        .with_inputs(|| runtime.block_on(bench.borrow_mut().write_minute()))
        .bench_local_values(|minute| runtime.block_on(bench.borrow_mut().close(minute)));
}

/// A lake with one gold table, and the rules over it.
struct Judged {
    lake: Arc<Lake>,
    spec: TableSpec,
    watch: Watch,
    next_minute: i64,
}

impl Judged {
    async fn open(folder: &tempfile::TempDir, rules: &str) -> Judged {
        let files = builtin::PIPELINES.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let mut pipelines = parse_all(&files).expect("the shipped pipelines are right");
        let specs = daemon::gold_specs(&pipelines).await.expect("the shipped pipelines are right");
        pipelines.retain(|pipeline: &Pipeline| pipeline.table() == TABLE);
        let spec = rollup::table_spec(&pipelines[0]).await.expect("the shipped pipelines are right");
        let rules = daemon::rules_in(&[("rules.yaml".to_owned(), rules.to_owned())], &specs).await;
        let clock = Arc::new(ManualClock::at(FIRST_MINUTE * MINUTE_MS));
        let lake = Lake::open(Place::folder(folder.path()).expect("a folder is a place"), clock.clone()).await;
        let lake = Arc::new(lake.expect("a new lake opens"));
        lake.ensure(spec.clone()).await.expect("a table can be made");
        let watch = Watch::open(
            Arc::clone(&lake),
            rules.expect("the rules are right"),
            pipelines,
            LIMITS,
            None,
            clock,
        )
        .await;
        let mut judged = Judged {
            lake,
            spec,
            watch: watch.expect("the lake can be read"),
            next_minute: FIRST_MINUTE,
        };
        // A full window before the clock runs.
        for _ in 0..5 {
            let minute = judged.write_minute().await;
            judged.close(minute).await;
        }
        judged
    }

    /// The next minute of all series, as a roll-up leaves it.
    async fn write_minute(&mut self) -> i64 {
        let minute = self.next_minute;
        self.next_minute += 1;
        let batch = rows(&self.spec, minute);
        self.lake
            .append(TABLE, vec![batch], Commit::default())
            .await
            .expect("rows can be appended");
        minute
    }

    async fn close(&mut self, minute: i64) {
        let closed = BTreeMap::from([(TABLE.to_owned(), BTreeSet::from([minute]))]);
        let end_ms = (minute + 1) * MINUTE_MS;
        let reached = Reached {
            watermark_ms: Some(end_ms),
            closed_ms: Some(end_ms),
            is_end: false,
            is_held: false,
        };
        self.watch
            .run(&closed, reached, end_ms)
            .await
            .expect("the lake can be read and written");
    }
}

/// Ten kinds of device of a thousand apps.
fn rows(spec: &TableSpec, minute: i64) -> RecordBatch {
    let of_app = |app: usize| (0..SERIES_OF_A_RULE).map(move |device| (app, device));
    // Arrow wants to know beforehand how many there are.
    let all: Vec<(usize, usize)> = (0..RULES).flat_map(of_app).collect();
    let series = || all.iter().copied();
    let column = |field: &Field| -> ArrayRef {
        let count = RULES * SERIES_OF_A_RULE;
        let time = |minute: i64| -> ArrayRef {
            let times = std::iter::repeat_n(minute * MINUTE_MS * 1_000, count);
            Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
        };
        let numbers = |value: fn(usize) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(
                series().map(|(app, device)| value(app * SERIES_OF_A_RULE + device)),
            ))
        };
        let texts = |text: fn((usize, usize)) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(series().map(text))) };
        match field.name().as_str() {
            "window_start" => time(minute),
            "window_end" => time(minute + 1),
            "event_date" => Arc::new(Date32Array::from(vec![
                i32::try_from(minute / 1_440).expect("a day of this century");
                count
            ])),
            "app_name" => texts(|(app, _)| format!("app-{app}")),
            "device_type" => texts(|(_, device)| format!("device-{device}")),
            "clients" => numbers(|_| 200),
            "clients_with_errors" => numbers(|series| if series % 100 == 0 { 60 } else { 2 }),
            _ if !field.is_nullable() && *field.data_type() == DataType::Utf8 => texts(|_| String::new()),
            _ if !field.is_nullable() => numbers(|_| 0),
            _ => new_null_array(field.data_type(), count),
        }
    };
    let cast_column = |field: &Arc<Field>| cast(&column(field), field.data_type()).expect("the column has a castable type");
    let columns = spec.schema.fields().iter().map(cast_column).collect();
    RecordBatch::try_new(Arc::clone(&spec.schema), columns).expect("the columns are those of the table")
}

//! Gold as an audience of the simulator leaves it, drawn minute by minute instead of counted from events.
//!
//! The world is the lifelike one of `playhead simulate` (`src/simulate`): its countries, ISPs, POPs, devices and
//! releases, and how often viewers there fail, stall and wait. What each of them counts in a minute is drawn as
//! chance spreads it: a hundred weeks cannot be simulated event by event. `incidents.rs` compares these numbers
//! with those of a simulation that went the whole way.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

pub const MINUTE_MS: i64 = 60_000;
/// Share of clients that an error hits in a minute.
pub const ERRORS: f64 = 0.01;
/// Mean time to first byte, and its spread in units of the mean.
pub const TTFB_MS: f64 = 40.0;
const TTFB_SPREAD: f64 = 1.3;
/// Length of a stall, its spread, and what a viewer watches of a minute.
const STALL_MS: f64 = 2_650.0;
const STALL_SPREAD_MS: f64 = 961.0;
const WATCHED_MS: f64 = 50_000.0;
/// Media length of a segment: of a thousand of these so many stall.
const SEGMENT_MS: f64 = 5_000.0;

/// ISP, country, share of the viewers in percent, segments of a thousand that stall.
const ISPS: [(&str, &str, f64, f64); 12] = [
    ("Example Cable", "US", 18.0, 4.0),
    ("Example Fiber", "US", 13.0, 2.0),
    ("Sample Wireless", "US", 9.0, 7.0),
    ("Placeholder DSL", "US", 6.0, 6.0),
    ("Beispielnetz", "DE", 10.0, 3.0),
    ("Musterkabel", "DE", 11.0, 4.0),
    ("Probefunk", "DE", 6.0, 6.0),
    ("Vorlage DSL", "DE", 6.0, 5.0),
    ("Exemplo Telecom", "BR", 8.0, 6.0),
    ("Modelo Fibra", "BR", 5.0, 4.0),
    ("Ejemplo Fibra", "ES", 5.0, 3.0),
    ("Muestra Cable", "ES", 3.0, 5.0),
];
/// Country, POP, edge location, share of the country's requests.
const POPS: [(&str, &str, &str, f64); 8] = [
    ("US", "IAD", "IAD89-C1", 0.6),
    ("US", "LAX", "LAX50-P2", 0.4),
    ("DE", "FRA", "FRA56-P4", 0.6),
    ("DE", "MUC", "MUC50-C1", 0.4),
    ("BR", "GRU", "GRU3-P1", 0.6),
    ("BR", "GIG", "GIG51-C2", 0.4),
    ("ES", "MAD", "MAD51-C1", 0.6),
    ("ES", "BCN", "BCN50-P1", 0.4),
];
/// App, device, share.
const DEVICES: [(&str, &str, f64); 4] = [
    ("Example Web", "desktop", 0.35),
    ("Example Mobile", "mobile", 0.35),
    ("Example Mobile", "tablet", 0.1),
    ("Example TV", "tv", 0.2),
];
const RELEASES: [(&str, f64); 3] = [("5.1.0", 0.25), ("5.2.0", 0.45), ("5.3.0", 0.3)];
/// The most watched; the rest is one.
const TITLES: [(&str, f64); 4] = [
    ("harbour-lights-e01", 0.4),
    ("news-live", 0.2),
    ("harbour-lights-e02", 0.15),
    ("others", 0.25),
];

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to 1, both left out.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    pub fn between(&mut self, range: Range<f64>) -> f64 {
        range.start + self.unit() * (range.end - range.start)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    fn spread(&mut self, sigma: f64) -> f64 {
        (sigma * self.normal()).exp()
    }

    fn poisson(&mut self, mean: f64) -> f64 {
        if mean > 50.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0);
        }
        let limit = (-mean).exp();
        let (mut count, mut product) = (0.0, self.unit());
        while product > limit {
            count += 1.0;
            product *= self.unit();
        }
        count
    }

    /// So many of `count`, each by this chance.
    fn of(&mut self, count: f64, chance: f64) -> f64 {
        let mean = count * chance;
        if mean > 50.0 && count - mean > 50.0 {
            let drawn = mean + (mean * (1.0 - chance)).sqrt() * self.normal();
            return drawn.round().clamp(0.0, count);
        }
        (0..count as u64).filter(|_| self.unit() < chance).count() as f64
    }
}

/// The tables that the shipped rules read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Errors,
    Cdn,
    Playback,
}

impl Table {
    pub const ALL: [Table; 3] = [Table::Errors, Table::Cdn, Table::Playback];

    fn stem(self) -> &'static str {
        match self {
            Table::Errors => "gold.errors",
            Table::Cdn => "gold.cdn",
            Table::Playback => "gold.playback",
        }
    }

    pub fn dims(self) -> &'static [&'static str] {
        match self {
            Table::Errors => &["app_name", "device_type", "app_version"],
            Table::Cdn => &["cdn", "country", "pop", "edge_location", "isp"],
            Table::Playback => &["isp", "country", "app_name", "device_type", "app_version", "cdn", "content_id"],
        }
    }

    fn numbers(self) -> &'static [&'static str] {
        match self {
            Table::Errors => &["clients", "clients_with_errors"],
            Table::Cdn => &["ttfb_count", "ttfb_ms_sum"],
            Table::Playback => &["active_sessions", "stall_ms", "playing_ms"],
        }
    }
}

/// One combination of values.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// In the order of the table's dimensions.
    pub values: Vec<&'static str>,
    /// Clients, requests or viewers of a minute.
    pub size: f64,
    /// Errors a client, ms a request, or the share of the time that is waited.
    pub ratio: f64,
}

/// The values that somebody shares: column and value.
pub type Set = Vec<(&'static str, &'static str)>;

/// Everybody, by table.
#[derive(Debug, Clone)]
pub struct World(pub BTreeMap<Table, Vec<Leaf>>);

impl World {
    /// `scale` 1 is what the shipped rules need to say anything; places differ a little from seed to seed.
    pub fn new(random: &mut Random, scale: f64) -> World {
        let mut leaves = BTreeMap::from(Table::ALL.map(|table| (table, Vec::new())));
        let mut put = |table: Table, values: &[&'static str], size: f64, ratio: f64| {
            let (size, ratio) = (scale * size * random.spread(0.1), ratio * random.spread(0.1));
            let values = values.to_vec();
            leaves.get_mut(&table).expect("all are there").push(Leaf { values, size, ratio });
        };
        for (app, device, of_devices) in DEVICES {
            for (release, of_releases) in RELEASES {
                put(Table::Errors, &[app, device, release], 6_000.0 * of_devices * of_releases, ERRORS);
            }
        }
        for (isp, country, percent, per_mille) in ISPS {
            for (_, pop, edge, of_country) in POPS.iter().filter(|(of, ..)| *of == country) {
                put(
                    Table::Cdn,
                    &["cloudfront", country, pop, edge, isp],
                    250.0 * percent * of_country,
                    TTFB_MS,
                );
            }
            // Others have too few ISPs to be compared with.
            if !["US", "DE"].contains(&country) {
                continue;
            }
            for (app, device, of_devices) in DEVICES {
                for (release, of_releases) in RELEASES {
                    for (title, of_titles) in TITLES {
                        let values = [isp, country, app, device, release, "cloudfront", title];
                        let share = of_devices * of_releases * of_titles;
                        put(Table::Playback, &values, 60.0 * percent * share, waiting(per_mille));
                    }
                }
            }
        }
        World(leaves)
    }

    pub fn leaves(&self, table: Table) -> &[Leaf] {
        &self.0[&table]
    }

    pub fn leaves_mut(&mut self, table: Table) -> &mut [Leaf] {
        self.0.get_mut(&table).expect("all are there")
    }
}

/// Share of the time that is waited where so many segments of a thousand stall.
pub fn waiting(per_mille: f64) -> f64 {
    per_mille / 1_000.0 * STALL_MS / SEGMENT_MS
}

pub fn place(table: Table, column: &str) -> usize {
    let found = table.dims().iter().position(|dim| *dim == column);
    found.unwrap_or_else(|| panic!("{table:?} has no {column}"))
}

/// True for a leaf with all of these values.
pub fn holds<T: AsRef<str>>(table: Table, leaf: &Leaf, set: &[(T, T)]) -> bool {
    set.iter()
        .all(|(column, value)| leaf.values[place(table, column.as_ref())] == value.as_ref())
}

/// The numerator of a window of so many minutes strays by this much by chance.
pub fn noise(table: Table, leaf: &Leaf, minutes: f64) -> f64 {
    let count = leaf.size * minutes;
    match table {
        Table::Errors => count * leaf.ratio * (1.0 - leaf.ratio),
        Table::Cdn => count * (leaf.ratio * TTFB_SPREAD).powi(2),
        Table::Playback => count * WATCHED_MS * leaf.ratio / STALL_MS * (STALL_MS.powi(2) + STALL_SPREAD_MS.powi(2)),
    }
    .sqrt()
}

/// What the denominator of a leaf counts in a minute.
pub fn denominator(table: Table, leaf: &Leaf) -> f64 {
    match table {
        Table::Errors | Table::Cdn => leaf.size,
        Table::Playback => leaf.size * WATCHED_MS,
    }
}

/// Rows of a table in the making.
#[derive(Default)]
struct Rows {
    starts_us: Vec<i64>,
    dims: Vec<Vec<&'static str>>,
    numbers: Vec<Vec<i64>>,
}

/// Gold in the making, by the names of the tables.
#[derive(Default)]
pub struct Gold(BTreeMap<(Table, &'static str), Rows>);

impl Gold {
    /// What a table counts of everybody in so many minutes, under the first of them. `grain` is the table's ending.
    pub fn count(&mut self, random: &mut Random, world: &World, table: Table, grain: &'static str, start_ms: i64, minutes: f64) {
        let rows = self.0.entry((table, grain)).or_insert_with(|| Rows {
            dims: vec![Vec::new(); table.dims().len()],
            numbers: vec![Vec::new(); table.numbers().len()],
            ..Rows::default()
        });
        for leaf in world.leaves(table) {
            rows.starts_us.push(start_ms * 1_000);
            for (column, value) in rows.dims.iter_mut().zip(&leaf.values) {
                column.push(value);
            }
            for (column, number) in rows.numbers.iter_mut().zip(drawn(random, table, leaf, minutes)) {
                column.push(number.round() as i64);
            }
        }
    }

    /// The rows by the tables' full names.
    pub fn batches(self) -> BTreeMap<String, RecordBatch> {
        let named = self.0.into_iter();
        named
            .map(|((table, grain), rows)| (format!("{}_{grain}", table.stem()), rows.batch(table, grain)))
            .collect()
    }
}

fn drawn(random: &mut Random, table: Table, leaf: &Leaf, minutes: f64) -> Vec<f64> {
    let count = random.poisson(leaf.size * minutes);
    match table {
        Table::Errors => vec![count, random.of(count, leaf.ratio)],
        Table::Cdn => {
            let strayed = count.sqrt() * TTFB_SPREAD * leaf.ratio * random.normal();
            vec![count, (count * leaf.ratio + strayed).max(0.0)]
        }
        Table::Playback => {
            let time_ms = count * WATCHED_MS;
            let stalls = random.poisson(time_ms * leaf.ratio / STALL_MS);
            let stall_ms = stalls * STALL_MS + stalls.sqrt() * STALL_SPREAD_MS * random.normal();
            let stall_ms = stall_ms.clamp(0.0, time_ms);
            vec![count, stall_ms, time_ms - stall_ms]
        }
    }
}

impl Rows {
    fn batch(&self, table: Table, grain: &str) -> RecordBatch {
        let length_us = 60_000_000
            * match grain {
                "1d" => 1_440,
                _ => 1,
            };
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let times = |offset_us: i64| -> ArrayRef {
            let times = self.starts_us.iter().map(|start| start + offset_us);
            Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
        };
        let mut fields = vec![
            Field::new("window_start", time.clone(), false),
            Field::new("window_end", time, false),
        ];
        let mut columns = vec![times(0), times(length_us)];
        for (name, texts) in table.dims().iter().zip(&self.dims) {
            fields.push(Field::new(*name, DataType::Utf8, true));
            columns.push(Arc::new(StringArray::from_iter_values(texts)));
        }
        for (name, numbers) in table.numbers().iter().zip(&self.numbers) {
            fields.push(Field::new(*name, DataType::Int64, false));
            columns.push(Arc::new(Int64Array::from(numbers.clone())));
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("as many columns as fields")
    }
}

//! The rows that a cause is looked for in: what each combination of dimension values counted in the
//! window, and what it counted in the baseline.
//!
//! Stands between the query of gold and the search: `watch` (or the command, or the table function)
//! pushes rows as they come; `leaves` brings them into one order that does not depend on it.
//!
//! Invariant: the leaves are the same, bit for bit, in whatever order rows and values came.
//! Invariant: rows of one combination are one leaf.

use std::cmp::Ordering;
use std::collections::HashMap;

/// Dimensions of one search. A set of causes over more can hardly be read, and the search packs one
/// byte per dimension into a word.
pub const DIMENSIONS_MAX: usize = 8;
/// Rows of one search: twice what it promises to take a second for. A row takes some 150 bytes in
/// all, so that they stay well under a gigabyte.
pub const ROWS_MAX: usize = 4_000_000;
/// The order's key is one word; dimensions that do not fit are compared one by one.
const KEY_BITS: u32 = 64;
/// Leaves whose sums (56 bytes each) fit into the cache next to a core.
const BLOCK_LEAVES: usize = 4_096;

/// Why rows were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    #[error("a cause is looked for in 1 to {DIMENSIONS_MAX} dimensions, not in {0}: name fewer under `explain.dims`")]
    Dimensions(usize),
    #[error("dimension `{0}` is named twice: name it once under `explain.dims`")]
    Repeated(String),
    #[error("a row has {found} values, but there are {expected} dimensions")]
    Width { found: usize, expected: usize },
    #[error("a row names a value of `{0}` that has not been interned in it")]
    UnknownValue(String),
    #[error("more than {ROWS_MAX} rows: name fewer dimensions under `explain.dims`, or those with fewer values")]
    TooMany,
}

/// A value of one dimension, as `Rows::intern` numbered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ValueId(u32);

/// What one combination of values counted. Sums, so that rows can be added up.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Counts {
    pub num: f64,
    pub den: f64,
    /// Sessions, requests, clients: what the noise of the figure depends on. For a share: `den`.
    pub samples: f64,
    /// Numerator and denominator of the baseline, over any length of time.
    pub base_num: f64,
    pub base_den: f64,
}

impl Counts {
    /// Sums that cannot be reckoned with: no number, or a negative amount of something counted.
    fn is_usable(&self) -> bool {
        let amounts = [self.den, self.samples, self.base_den];
        amounts.iter().all(|amount| amount.is_finite() && *amount >= 0.0) && self.num.is_finite() && self.base_num.is_finite()
    }

    fn plus(self, other: Counts) -> Counts {
        Counts {
            num: self.num + other.num,
            den: self.den + other.den,
            samples: self.samples + other.samples,
            base_num: self.base_num + other.base_num,
            base_den: self.base_den + other.base_den,
        }
    }

    fn order(&self, other: &Counts) -> Ordering {
        self.num
            .total_cmp(&other.num)
            .then(self.den.total_cmp(&other.den))
            .then(self.samples.total_cmp(&other.samples))
            .then(self.base_num.total_cmp(&other.base_num))
            .then(self.base_den.total_cmp(&other.base_den))
    }
}

/// The values of one dimension, numbered in the order they came.
#[derive(Debug, Clone, Default)]
struct Values {
    texts: Vec<Option<String>>,
    known: HashMap<String, u32>,
    /// The number of the unknown value.
    unknown: Option<u32>,
    /// Rows mostly come sorted, so the value of the row before is asked first.
    last: u32,
}

impl Values {
    fn intern(&mut self, value: Option<&str>) -> u32 {
        if self.texts.get(self.last as usize).is_some_and(|text| text.as_deref() == value) {
            return self.last;
        }
        let found = match value {
            Some(text) => self.known.get(text).copied(),
            None => self.unknown,
        };
        self.last = found.unwrap_or_else(|| self.add(value));
        self.last
    }

    fn add(&mut self, value: Option<&str>) -> u32 {
        let id = u32::try_from(self.texts.len()).expect("there are fewer values than rows, and rows are bounded");
        self.texts.push(value.map(str::to_owned));
        match value {
            Some(text) => _ = self.known.insert(text.to_owned(), id),
            None => self.unknown = Some(id),
        }
        id
    }

    /// The texts in order, and for each number its place in it.
    fn ranked(&self) -> (Vec<Option<String>>, Vec<u32>) {
        let mut ids: Vec<u32> = (0..).take(self.texts.len()).collect();
        ids.sort_by(|a, b| self.texts[*a as usize].cmp(&self.texts[*b as usize]));
        let mut ranks = vec![0; ids.len()];
        for (rank, id) in (0..).zip(&ids) {
            ranks[*id as usize] = rank;
        }
        let texts = ids.iter().map(|id| self.texts[*id as usize].clone()).collect();
        (texts, ranks)
    }
}

/// Rows as they come.
#[derive(Debug, Clone)]
pub struct Rows {
    dimensions: Vec<String>,
    values: Vec<Values>,
    /// Row by row, one number per dimension.
    ids: Vec<u32>,
    counts: Vec<Counts>,
    unusable: u64,
}

impl Rows {
    /// `dimensions` in the order in which causes are to name them.
    pub fn new<S: AsRef<str>>(dimensions: &[S]) -> Result<Rows, RowsError> {
        if dimensions.is_empty() || dimensions.len() > DIMENSIONS_MAX {
            return Err(RowsError::Dimensions(dimensions.len()));
        }
        let names: Vec<String> = dimensions.iter().map(|name| name.as_ref().to_owned()).collect();
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                return Err(RowsError::Repeated(name.clone()));
            }
        }
        Ok(Rows {
            values: vec![Values::default(); names.len()],
            dimensions: names,
            ids: Vec::new(),
            counts: Vec::new(),
            unusable: 0,
        })
    }

    /// Numbers a value, `None` being the unknown one. A caller that has dictionaries asks once per
    /// entry of a dictionary and then pushes numbers. Past `ROWS_MAX` values of a dimension it says
    /// `TooMany`: no search could have rows for them.
    pub fn intern(&mut self, dimension: usize, value: Option<&str>) -> Result<ValueId, RowsError> {
        let width = self.width();
        let values = self.values.get_mut(dimension).ok_or(RowsError::Width {
            found: dimension + 1,
            expected: width,
        })?;
        if values.texts.len() > ROWS_MAX {
            return Err(RowsError::TooMany);
        }
        Ok(ValueId(values.intern(value)))
    }

    /// Adds a row of interned values. A row whose sums are no numbers is counted and left out.
    pub fn push(&mut self, values: &[ValueId], counts: Counts) -> Result<(), RowsError> {
        self.check_width(values.len())?;
        for (dimension, value) in values.iter().enumerate() {
            if value.0 as usize >= self.values[dimension].texts.len() {
                return Err(RowsError::UnknownValue(self.dimensions[dimension].clone()));
            }
        }
        if self.is_taken(&counts)? {
            self.ids.extend(values.iter().map(|value| value.0));
            self.counts.push(counts);
        }
        Ok(())
    }

    /// Adds a row of texts, in the order of the dimensions.
    pub fn push_texts(&mut self, values: &[Option<&str>], counts: Counts) -> Result<(), RowsError> {
        self.check_width(values.len())?;
        if self.is_taken(&counts)? {
            for (known, value) in self.values.iter_mut().zip(values) {
                let id = known.intern(*value);
                self.ids.push(id);
            }
            self.counts.push(counts);
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.counts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Rows left out because their sums are no numbers.
    pub fn unusable(&self) -> u64 {
        self.unusable
    }

    fn width(&self) -> usize {
        self.dimensions.len()
    }

    fn check_width(&self, found: usize) -> Result<(), RowsError> {
        let expected = self.width();
        if found == expected {
            Ok(())
        } else {
            Err(RowsError::Width { found, expected })
        }
    }

    fn is_taken(&mut self, counts: &Counts) -> Result<bool, RowsError> {
        if !counts.is_usable() {
            self.unusable += 1;
            return Ok(false);
        }
        if self.counts.len() >= ROWS_MAX {
            Err(RowsError::TooMany)
        } else {
            Ok(true)
        }
    }

    /// The rows in order of their values' texts, those of one combination added up.
    pub(super) fn leaves(&self) -> Leaves {
        let (texts, ranks): (Vec<_>, Vec<_>) = self.values.iter().map(Values::ranked).unzip();
        let width = self.width();
        let packed = packed_dimensions(&texts);
        let rank = |row: u32, dimension: usize| ranks[dimension][self.ids[row as usize * width + dimension] as usize];
        let mut order: Vec<(u64, u32)> = (0..)
            .take(self.len())
            .map(|row| {
                let pack = |key: u64, (dimension, bits): (usize, &u32)| (key << bits) | u64::from(rank(row, dimension));
                (packed.iter().enumerate().fold(0, pack), row)
            })
            .collect();
        let rest = |a: u32, b: u32| {
            (packed.len()..width)
                .map(|d| rank(a, d).cmp(&rank(b, d)))
                .find(|order| order.is_ne())
        };
        order.sort_unstable_by(|(key_a, a), (key_b, b)| {
            key_a
                .cmp(key_b)
                .then_with(|| rest(*a, *b).unwrap_or(Ordering::Equal))
                .then_with(|| self.counts[*a as usize].order(&self.counts[*b as usize]))
        });
        let is_whole = packed.len() == width;
        let mut leaves = Leaves::with_capacity(self.dimensions.clone(), texts, order.len());
        let mut before: Option<(u64, u32)> = None;
        for (key, row) in order {
            let counts = self.counts[row as usize];
            let is_same = before.is_some_and(|(last, other)| last == key && (is_whole || rest(other, row).is_none()));
            before = Some((key, row));
            match leaves.counts.last_mut().filter(|_| is_same) {
                Some(leaf) => *leaf = leaf.plus(counts),
                None => {
                    leaves.keys.push(key);
                    leaves.counts.push(counts);
                    for dimension in packed.len()..width {
                        leaves.columns[dimension].push(rank(row, dimension));
                    }
                }
            }
        }
        leaves.unpack(&packed);
        leaves
    }
}

/// Bits of the leading dimensions that fit into one key.
fn packed_dimensions(texts: &[Vec<Option<String>>]) -> Vec<u32> {
    let mut left = KEY_BITS;
    let mut packed = Vec::new();
    for values in texts {
        let bits = usize::BITS - values.len().saturating_sub(1).leading_zeros();
        if bits >= left {
            break;
        }
        left -= bits;
        packed.push(bits);
    }
    packed
}

/// One row per combination, in an order that follows from the values alone.
#[derive(Debug)]
pub(super) struct Leaves {
    pub dimensions: Vec<String>,
    /// Per dimension, its values in order.
    pub texts: Vec<Vec<Option<String>>>,
    /// Per dimension, the place of each leaf's value in `texts`.
    pub columns: Vec<Vec<u32>>,
    pub counts: Vec<Counts>,
    /// Differs between leaves, but for dimensions with more values than a key holds.
    pub keys: Vec<u64>,
}

impl Leaves {
    fn with_capacity(dimensions: Vec<String>, texts: Vec<Vec<Option<String>>>, leaves: usize) -> Leaves {
        Leaves {
            columns: vec![Vec::with_capacity(leaves); dimensions.len()],
            dimensions,
            texts,
            counts: Vec::with_capacity(leaves),
            keys: Vec::with_capacity(leaves),
        }
    }

    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Fills the columns of the packed dimensions from the keys.
    fn unpack(&mut self, packed: &[u32]) {
        let mut shift = 0;
        for (column, bits) in self.columns.iter_mut().zip(packed).rev() {
            let mask = (1u64 << bits) - 1;
            column.extend(self.keys.iter().map(|key| ((key >> shift) & mask) as u32));
            shift += bits;
        }
    }

    /// Adds something up by the values of each dimension. Goes through the leaves in blocks, each
    /// block by all dimensions, so that they are fetched from memory once and not eight times.
    pub fn by_value<T: Clone + Default>(&self, mut add: impl FnMut(&mut T, usize)) -> Vec<Vec<T>> {
        let mut totals: Vec<Vec<T>> = self.texts.iter().map(|texts| vec![T::default(); texts.len()]).collect();
        for start in (0..self.len()).step_by(BLOCK_LEAVES) {
            let block = start..self.len().min(start + BLOCK_LEAVES);
            for (column, totals) in self.columns.iter().zip(&mut totals) {
                for (leaf, value) in block.clone().zip(&column[block.clone()]) {
                    add(&mut totals[*value as usize], leaf);
                }
            }
        }
        totals
    }
}

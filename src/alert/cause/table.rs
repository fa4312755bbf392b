//! The leaves made few: only values that could be part of a cause keep their name.
//!
//! Stands behind `expect`, before `search`. A cause explains a tenth of the excess or more, and so
//! does, but for chance, each of its values alone. All other values of a dimension are alike to the
//! search and become one, which makes few cells of many leaves.
//!
//! Invariant: the cells hold every leaf exactly once.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::expect::{Expected, Sums};
use super::rows::{DIMENSIONS_MAX, Leaves};
use super::search::{Noise, mixed};

/// Values of one dimension that are searched: those with the most excess. Not more than ten can
/// each explain a tenth of it; the others are there by chance.
const VALUES_MAX: usize = 64;

/// One byte per dimension: the place of the value among the searched ones from 1; 0 is any other.
pub(super) type Codes = [u8; DIMENSIONS_MAX];

/// The searched cells.
#[derive(Debug)]
pub(super) struct Table {
    /// Per dimension, the searched values: places in `Leaves::texts`, code 1 first.
    pub values: Vec<Vec<u32>>,
    pub codes: Vec<Codes>,
    pub sums: Vec<Sums>,
    /// The cell of each leaf.
    pub cell_of: Vec<u32>,
}

impl Table {
    /// Keeps the values whose excess may reach `floor`.
    pub fn new(leaves: &Leaves, expected: &Expected, noise: &Noise, floor: f64) -> Table {
        let by_value: Vec<Vec<Sums>> = leaves.by_value(|sums: &mut Sums, leaf| sums.add(&expected.sums[leaf]));
        let values: Vec<Vec<u32>> = by_value.iter().map(|sums| searched(sums, noise, floor)).collect();
        let mut leaf_codes = vec![0u64; leaves.len()];
        for (dimension, (column, kept)) in leaves.columns.iter().zip(&values).enumerate() {
            let mut code_of = vec![0u64; leaves.texts[dimension].len()];
            for (code, value) in (1..).zip(kept) {
                code_of[*value as usize] = code << (8 * dimension);
            }
            for (value, code) in column.iter().zip(&mut leaf_codes) {
                *code |= code_of[*value as usize];
            }
        }
        Table::of_codes(values, &leaf_codes, &expected.sums)
    }

    fn of_codes(values: Vec<Vec<u32>>, leaf_codes: &[u64], leaf_sums: &[Sums]) -> Table {
        let mut table = Table {
            values,
            codes: Vec::new(),
            sums: Vec::new(),
            cell_of: Vec::with_capacity(leaf_codes.len()),
        };
        let mut cells: HashMap<u64, u32, BuildHasherDefault<CodeHasher>> = HashMap::default();
        let mut last: Option<(u64, u32)> = None;
        for (code, sums) in leaf_codes.iter().zip(leaf_sums) {
            let cell = match last.filter(|(known, _)| known == code) {
                Some((_, cell)) => cell,
                None => *cells.entry(*code).or_insert_with(|| {
                    table.codes.push(code.to_le_bytes());
                    table.sums.push(Sums::default());
                    u32::try_from(table.sums.len() - 1).expect("there are no more cells than rows, and rows are bounded")
                }),
            };
            last = Some((*code, cell));
            table.sums[cell as usize].add(sums);
            table.cell_of.push(cell);
        }
        table
    }
}

/// Codes are numbered by us, so nobody outside can make them collide: a plain hash does.
#[derive(Default)]
struct CodeHasher(u64);

impl Hasher for CodeHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, code: u64) {
        self.0 = mixed(self.0 ^ code);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn searched(by_value: &[Sums], noise: &Noise, floor: f64) -> Vec<u32> {
    let mut kept: Vec<(f64, u32)> = (0..)
        .zip(by_value)
        .map(|(value, sums)| (noise.at_most(sums), value))
        .filter(|(at_most, _)| *at_most >= floor)
        .collect();
    kept.sort_by(|(a, x), (b, y)| b.total_cmp(a).then(x.cmp(y)));
    kept.truncate(VALUES_MAX);
    kept.into_iter().map(|(_, value)| value).collect()
}

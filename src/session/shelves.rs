//! Shelves: where a shard keeps the packed keys, many to a page, with next to nothing between them.
//!
//! Stands below `shard`; knows bytes and no rules. An allocation for each key would round its size up,
//! by a sixteenth on average, and leave holes behind when keys grow.
//!
//! Invariant: each shelf holds records of one size, without a gap: the last one fills the place of one
//! that is taken away. The caller is told whose it is.

/// Sizes of records differ by this: half of it is lost with each.
const STEP_BYTES: usize = 8;
/// Large enough that what is left at a page's end is little, small enough that a shelf of few records is.
const PAGE_BYTES: usize = 32 * 1024;
/// A longer record is an allocation of its own.
const SHELVED_MAX_BYTES: usize = PAGE_BYTES / 8;
/// In front of a record: the number of its owner.
const OWNER_BYTES: usize = size_of::<u32>();

/// Where a record lies: the length tells the shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    len: u32,
    at: u32,
}

/// Records of one size, side by side.
#[derive(Debug, Default)]
struct Shelf {
    /// Each full but the last; none is empty.
    pages: Vec<Vec<u8>>,
    records: usize,
}

/// The packed keys of one shard.
#[derive(Debug, Default)]
pub struct Shelves {
    /// By the size of their records, in steps.
    shelves: Vec<Shelf>,
    long: Vec<Long>,
}

/// A record too long for a shelf.
#[derive(Debug)]
struct Long {
    owner: u32,
    bytes: Box<[u8]>,
}

impl Shelves {
    /// Keeps a copy of `bytes` for an owner.
    pub fn put(&mut self, owner: u32, bytes: &[u8]) -> Place {
        let at = match shelf_of(bytes.len()) {
            None => self.put_long(owner, bytes),
            Some(steps) => {
                if self.shelves.len() <= steps {
                    self.shelves.resize_with(steps + 1, Shelf::default);
                }
                self.shelves[steps].put(steps, owner, bytes)
            }
        };
        Place {
            len: bytes.len() as u32,
            at: at as u32,
        }
    }

    pub fn get(&self, place: Place) -> &[u8] {
        let (len, at) = (place.len as usize, place.at as usize);
        let Some(steps) = shelf_of(len) else {
            return self.long.get(at).map_or(&[], |long| &long.bytes);
        };
        let record = self.shelves.get(steps).and_then(|shelf| shelf.record(steps, at));
        record.map_or(&[], |(_, bytes)| &bytes[..len])
    }

    /// Takes a record away. Returns the owner of the one that is now in its place, if one is.
    pub fn remove(&mut self, place: Place) -> Option<u32> {
        let at = place.at as usize;
        let Some(steps) = shelf_of(place.len as usize) else {
            if at < self.long.len() {
                self.long.swap_remove(at);
            }
            return self.long.get(at).map(|long| long.owner);
        };
        self.shelves.get_mut(steps)?.remove(steps, at)
    }

    fn put_long(&mut self, owner: u32, bytes: &[u8]) -> usize {
        let bytes = Box::from(bytes);
        self.long.push(Long { owner, bytes });
        self.long.len() - 1
    }
}

impl Place {
    /// Where a record of this length is that has taken the place of another.
    pub fn moved_to(self, other: Place) -> Place {
        Place { at: other.at, ..self }
    }
}

impl Shelf {
    fn put(&mut self, steps: usize, owner: u32, bytes: &[u8]) -> usize {
        let (page, from) = spot_of(steps, self.records);
        if page == self.pages.len() {
            self.pages.push(Vec::with_capacity(PAGE_BYTES));
        }
        let page = &mut self.pages[page];
        page.extend_from_slice(&owner.to_le_bytes());
        page.extend_from_slice(bytes);
        page.resize(from + steps * STEP_BYTES, 0);
        self.records += 1;
        self.records - 1
    }

    /// Owner and bytes, those that fill up the last step among them.
    fn record(&self, steps: usize, at: usize) -> Option<(u32, &[u8])> {
        let (page, from) = spot_of(steps, at);
        let record = self.pages.get(page)?.get(from..from + steps * STEP_BYTES)?;
        let (owner, bytes) = record.split_first_chunk()?;
        Some((u32::from_le_bytes(*owner), bytes))
    }

    fn remove(&mut self, steps: usize, at: usize) -> Option<u32> {
        let last_at = self.records.checked_sub(1)?;
        let bytes = steps * STEP_BYTES;
        let ((page, from), (last_page, last_from)) = (spot_of(steps, at), spot_of(steps, last_at));
        let mut moved = None;
        if at < last_at {
            moved = self.record(steps, last_at).map(|(owner, _)| owner);
            if page == last_page {
                self.pages[page].copy_within(last_from..last_from + bytes, from);
            } else if let [first @ .., last] = &mut self.pages[..] {
                first[page][from..from + bytes].copy_from_slice(&last[last_from..last_from + bytes]);
            }
        }
        self.records = last_at;
        self.pages[last_page].truncate(last_from);
        if last_from == 0 {
            self.pages.pop();
        }
        moved
    }
}

/// The shelf of records of this length; `None`: it is too long for one.
fn shelf_of(len: usize) -> Option<usize> {
    let steps = (OWNER_BYTES + len).div_ceil(STEP_BYTES);
    (steps * STEP_BYTES <= SHELVED_MAX_BYTES).then_some(steps)
}

/// The page of a record and where in it the record begins.
fn spot_of(steps: usize, at: usize) -> (usize, usize) {
    let bytes = steps * STEP_BYTES;
    let per_page = PAGE_BYTES / bytes;
    (at / per_page, at % per_page * bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_are_found_wherever_they_were_moved_to(
            steps in proptest::collection::vec((0..40u32, prop_oneof![8 => 0..40usize, 2 => 0..700usize, 1 => 3_000..6_000usize]), 1..400),
        ) {
            let mut shelves = Shelves::default();
            let mut places: HashMap<u32, (Place, Vec<u8>)> = HashMap::new();
            for (owner, len) in steps {
                if let Some((place, _)) = places.remove(&owner) {
                    if let Some(moved) = shelves.remove(place) {
                        let known = places.get_mut(&moved).expect("what moves is there");
                        known.0 = known.0.moved_to(place);
                    }
                } else {
                    let bytes = vec![owner as u8 ^ len as u8; len];
                    places.insert(owner, (shelves.put(owner, &bytes), bytes));
                }
                for (place, bytes) in places.values() {
                    prop_assert_eq!(shelves.get(*place), &bytes[..]);
                }
            }
            let pages = shelves.shelves.iter().map(|shelf| shelf.pages.len());
            prop_assert!(pages.sum::<usize>() <= places.len());
        }
    }

    #[test]
    fn pages_are_full_and_leave_with_their_last_record() {
        let mut shelves = Shelves::default();
        let places: Vec<Place> = (0..1_000).map(|owner| shelves.put(owner, &[7; 300])).collect();
        let pages = |shelves: &Shelves| shelves.shelves.iter().map(|shelf| shelf.pages.len()).sum::<usize>();
        assert_eq!(pages(&shelves), 1_000usize.div_ceil(PAGE_BYTES / 304));
        for place in places.iter().rev() {
            assert_eq!(shelves.remove(*place), None);
        }
        assert_eq!(pages(&shelves), 0);
    }
}

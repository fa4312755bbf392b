//! The simulator's random numbers: SplitMix64, so a seed means the same on every machine.
//!
//! Invariant: not for secrets. Keys and pseudonyms never come from here.

/// 2^64 divided by the golden ratio: steps of this size visit all 64-bit numbers.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of numbers that its key determines.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of one thing among many: viewer 17's stream does not depend on viewer 16's.
    pub fn of(seed: u64, purpose: u64, index: u64) -> Random {
        let state = mix(seed ^ mix(purpose.wrapping_mul(STEP) ^ mix(index.wrapping_add(STEP))));
        Random { state }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// Even over `0..end`; 0 where `end` is 0.
    pub fn below(&mut self, end: u32) -> u32 {
        let top_half = self.next() >> 32;
        ((top_half * u64::from(end)) >> 32) as u32
    }

    /// Even over `low..end`.
    pub fn between(&mut self, low: u32, end: u32) -> u32 {
        low + self.below(end.saturating_sub(low))
    }

    /// True in `share` of `of` cases.
    pub fn chance(&mut self, share: u32, of: u32) -> bool {
        self.below(of) < share
    }

    /// An index into `weights`, as often as its weight says.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if left < *weight {
                return index;
            }
            left -= weight;
        }
        0
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_that_splitmix64_is_known_for() {
        // First outputs for the state 1234567, as published with the generator.
        let mut random = Random { state: 1_234_567 };
        let first = [random.next(), random.next(), random.next()];
        let published = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(first, published);
    }

    #[test]
    fn draws_stay_in_range_and_spread_evenly() {
        let mut random = Random::of(1, 2, 3);
        let mut counts = [0u32; 3];
        for _ in 0..30_000 {
            assert!((10..20).contains(&random.between(10, 20)));
            counts[random.weighted(&[1, 2, 7])] += 1;
        }
        let expected = [3_000u32, 6_000, 21_000];
        for (count, wanted) in counts.into_iter().zip(expected) {
            assert!(count.abs_diff(wanted) < wanted / 10, "{counts:?}");
        }
        assert_eq!(random.below(0), 0);
    }
}

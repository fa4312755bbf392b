//! startup_band(bigint) -> text: the band that a startup time falls into, ms.
//!
//! ```sql
//! SELECT startup_band(1840)  -- 1000-2000 ms
//! ```
//!
//! The bounds are those of the columns `startup_le_...` of gold.playback_1m: a time on a bound belongs
//! to the band below it. A negative time is a clock gone wrong and gives NULL.

use arroyo_udf_plugin::udf;

const BOUNDS_MS: [i64; 12] = [500, 1000, 2000, 3000, 4000, 6000, 8000, 10000, 15000, 20000, 30000, 60000];

#[udf]
fn startup_band(startup_ms: i64) -> Option<String> {
    if startup_ms < 0 {
        return None;
    }
    let mut below = 0;
    for bound in BOUNDS_MS {
        if startup_ms <= bound {
            return Some(format!("{below}-{bound} ms"));
        }
        below = bound;
    }
    Some(format!("over {below} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_on_a_bound_belongs_below_it() {
        assert_eq!(startup_band(500).as_deref(), Some("0-500 ms"));
        assert_eq!(startup_band(501).as_deref(), Some("500-1000 ms"));
        assert_eq!(startup_band(i64::MAX).as_deref(), Some("over 60000 ms"));
        assert_eq!(startup_band(-1), None);
    }
}

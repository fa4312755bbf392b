//! The experience score of one session and what took it down (events and metrics, 3.9).
//!
//! Stands between the sums that `session` derives and the row that `event::facts::PlaybackSession`
//! holds. Five factors, each in 0 to 1, are multiplied; what is missing from 100 is split by the
//! logarithms of the factors, so that every point lost has a reason.
//!
//! Invariant: score + all losses = 100 to the last bit, whatever the order of the additions.
//! Invariant: no loss is negative, and the score falls with no better input.

use crate::event::ErrorClass;
use crate::event::facts::Score;

/// Scores and losses are multiples of 1 / `GRID`, about a millionth of a point: finer than anybody
/// reads, and coarse enough that an `f64` adds up 67 million of them (2^53 / 2^20 / 2^7) without
/// rounding. A sum over sessions is therefore the same in every order.
const GRID: f64 = 1_048_576.0;

/// Less than this says nothing about an experience.
const KNOWN_MS_MIN: i64 = 1_000;

const FULL_SCORE: f64 = 100.0;

/// The losses in the order of the factors, without `loss_`.
const REASONS: [&str; 5] = ["availability", "startup", "stall_time", "interruptions", "picture"];

/// What the score looks at; all of it is in the session's row.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ScoreInput<'a> {
    pub played: bool,
    pub exit_before_start: bool,
    /// A fatal error ended the session, before or after the first frame.
    pub failed: bool,
    /// Class of that error.
    pub error_class: Option<ErrorClass>,
    pub early_exit: bool,
    pub is_bot: bool,
    /// For how long anything is known of the session.
    pub known_ms: i64,
    pub startup_ms: Option<i64>,
    pub exit_wait_ms: Option<i64>,
    pub playing_ms: i64,
    pub stall_conn_ms: i64,
    pub stall_conn_count: i64,
    /// 0 to 1; `None` if the ladder is unknown, which costs nothing.
    pub picture_quality: Option<f64>,
    pub switches_down: i64,
    pub avg_bitrate_bps: Option<i64>,
    pub device_type: Option<&'a str>,
}

/// The constants of the score. Whoever changes one changes `version`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreParams {
    pub version: u32,
    /// Availability of an attempt that was left before the first frame.
    pub exit_availability: f64,
    /// Startup that costs nothing, ms.
    pub startup_free_ms: i64,
    /// What each second of startup past that leaves.
    pub startup_base: f64,
    /// Exponent of the share of time that was stalled.
    pub stall_weight: f64,
    /// What each interruption leaves.
    pub interruption_base: f64,
    /// Interruptions past this many cost no more.
    pub interruptions_max: i64,
    /// Share of the score that the worst picture takes.
    pub picture_weight: f64,
    /// What each change to a lower bitrate leaves.
    pub switch_down_base: f64,
    pub good: GoodSession,
}

/// The thresholds of a good session; an unknown figure breaks none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GoodSession {
    pub startup_ms_max: i64,
    /// Connection-induced stall time over playing and stall time.
    pub stall_ratio_max: f64,
    pub exit_wait_ms_max: i64,
    pub floors: BitrateFloors,
}

/// The lowest average bitrate that still suits the screen, bit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitrateFloors {
    pub mobile_bps: i64,
    /// Tablets, computers, and devices of which nothing is known.
    pub desktop_bps: i64,
    /// Television sets and consoles.
    pub tv_bps: i64,
}

impl Default for ScoreParams {
    /// The table of 3.9. Startup and stall time after Krishnan and Sitaraman (IMC 2012): 5.8 % more
    /// viewers leave per second past two, 1 % of stalling costs 5 % of viewing. The rest is our choice.
    fn default() -> Self {
        Self {
            version: 1,
            exit_availability: 0.5,
            startup_free_ms: 2_000,
            startup_base: 0.942,
            stall_weight: 5.13,
            interruption_base: 0.98,
            interruptions_max: 20,
            picture_weight: 0.3,
            switch_down_base: 0.995,
            good: GoodSession {
                startup_ms_max: 5_000,
                stall_ratio_max: 0.004,
                exit_wait_ms_max: 10_000,
                floors: BitrateFloors::default(),
            },
        }
    }
}

impl Default for BitrateFloors {
    /// Rungs of the usual H.264 ladder: 360p is the first that can be read on a phone (365 kbit/s),
    /// 432p on a desk (730 kbit/s), 540p across a room (2000 kbit/s). Our choice.
    fn default() -> Self {
        Self {
            mobile_bps: 365_000,
            desktop_bps: 730_000,
            tv_bps: 2_000_000,
        }
    }
}

impl BitrateFloors {
    fn of(self, device_type: Option<&str>) -> i64 {
        match device_type {
            Some("mobile") => self.mobile_bps,
            Some("tv" | "console") => self.tv_bps,
            _ => self.desktop_bps,
        }
    }
}

/// `None` where a score would mislead: nothing was tried or it is still starting, the service itself
/// refused (business failure), the viewer left at once, a bot, or less than a second is known.
pub fn score(input: &ScoreInput<'_>, params: &ScoreParams) -> Option<Score> {
    let refused = input.failed && input.error_class == Some(ErrorClass::Business);
    if refused || input.early_exit || input.is_bot || input.known_ms < KNOWN_MS_MIN {
        return None;
    }
    let factors = [
        availability(input, params)?,
        startup(input, params),
        (-params.stall_weight * stall_ratio(input)).exp(),
        power(params.interruption_base, input.stall_conn_count.min(params.interruptions_max)),
        picture(input, params),
    ]
    .map(|factor| factor.clamp(0.0, 1.0));
    let score = (FULL_SCORE * factors.iter().product::<f64>() * GRID).round() / GRID;
    let losses = split(FULL_SCORE - score, &factors);
    let [loss_availability, loss_startup, loss_stall_time, loss_interruptions, loss_picture] = losses;
    Some(Score {
        score,
        loss_availability,
        loss_startup,
        loss_stall_time,
        loss_interruptions,
        loss_picture,
        top_reason: (score < FULL_SCORE).then(|| REASONS[hardest(&factors)]),
        is_good: is_good(input, &params.good),
    })
}

/// `None` while the attempt is still starting, or if there was none.
fn availability(input: &ScoreInput<'_>, params: &ScoreParams) -> Option<f64> {
    match (input.failed, input.played, input.exit_before_start) {
        (true, _, _) => Some(0.0),
        (false, true, _) => Some(1.0),
        (false, false, true) => Some(params.exit_availability),
        (false, false, false) => None,
    }
}

/// Of a play its startup, of an exit the wait; unknown costs nothing.
fn startup(input: &ScoreInput<'_>, params: &ScoreParams) -> f64 {
    let waited_ms = if input.played { input.startup_ms } else { input.exit_wait_ms };
    let over_ms = waited_ms.unwrap_or(0).saturating_sub(params.startup_free_ms).max(0);
    params.startup_base.powf(over_ms as f64 / 1_000.0)
}

/// Connection-induced stall time over playing and that stall time (`rebuffer_ratio_conn`).
fn stall_ratio(input: &ScoreInput<'_>) -> f64 {
    let stalled = input.stall_conn_ms.max(0) as f64;
    let watched = input.playing_ms.max(0) as f64 + stalled;
    if watched == 0.0 { 0.0 } else { stalled / watched }
}

fn picture(input: &ScoreInput<'_>, params: &ScoreParams) -> f64 {
    let quality = input.picture_quality.filter(|quality| quality.is_finite());
    let missing = 1.0 - quality.unwrap_or(1.0).clamp(0.0, 1.0);
    (1.0 - params.picture_weight * missing) * power(params.switch_down_base, input.switches_down)
}

fn power(base: f64, times: i64) -> f64 {
    base.powf(times.max(0) as f64)
}

/// Splits `loss` by the logarithms of the factors. What rounding leaves goes to the hardest factor,
/// so that the parts add up; a factor of zero takes all.
fn split(loss: f64, factors: &[f64; 5]) -> [f64; 5] {
    let hardest = hardest(factors);
    let mut losses = [0.0; 5];
    if factors[hardest] > 0.0 {
        let total: f64 = factors.iter().map(|factor| factor.ln()).sum();
        for (part, factor) in losses.iter_mut().zip(factors).filter(|(_, factor)| **factor < 1.0) {
            *part = (loss * (factor.ln() / total) * GRID).floor() / GRID;
        }
        losses[hardest] = 0.0;
    }
    losses[hardest] = loss - losses.iter().sum::<f64>();
    losses
}

/// The factor that took most; the first of equals.
fn hardest(factors: &[f64; 5]) -> usize {
    let mut hardest = 0;
    for (index, factor) in factors.iter().enumerate() {
        if *factor < factors[hardest] {
            hardest = index;
        }
    }
    hardest
}

fn is_good(input: &ScoreInput<'_>, good: &GoodSession) -> bool {
    let at_most = |value: Option<i64>, max: i64| value.is_none_or(|value| value <= max);
    let floor_bps = good.floors.of(input.device_type);
    !input.failed
        && at_most(input.startup_ms, good.startup_ms_max)
        && at_most(input.exit_wait_ms, good.exit_wait_ms_max)
        && stall_ratio(input) <= good.stall_ratio_max
        && input.avg_bitrate_bps.is_none_or(|bps| bps >= floor_bps)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One minute of playing and nothing wrong.
    fn flawless() -> ScoreInput<'static> {
        ScoreInput {
            played: true,
            known_ms: 61_000,
            startup_ms: Some(1_000),
            playing_ms: 60_000,
            ..ScoreInput::default()
        }
    }

    /// Figures as the golden vectors give them: to two digits.
    fn rounded(input: ScoreInput<'_>) -> Option<([f64; 6], Option<&'static str>)> {
        let score = score(&input, &ScoreParams::default())?;
        let two = |value: f64| (value * 100.0).round() / 100.0;
        let figures = [score.score, score.loss_availability, score.loss_startup];
        let more = [score.loss_stall_time, score.loss_interruptions, score.loss_picture];
        let [a, b, c] = figures.map(two);
        let [d, e, f] = more.map(two);
        Some(([a, b, c, d, e, f], score.top_reason))
    }

    #[track_caller]
    fn check(input: ScoreInput<'_>, expected: [f64; 6], top_reason: Option<&str>) {
        assert_eq!(rounded(input), Some((expected, top_reason)));
    }

    #[test]
    fn golden_vector_m12() {
        let input = ScoreInput {
            startup_ms: Some(4_000),
            playing_ms: 98_000,
            stall_conn_ms: 2_000,
            stall_conn_count: 2,
            ..flawless()
        };
        check(input, [76.91, 0.0, 10.51, 9.02, 3.55, 0.0], Some("startup"));
    }

    #[test]
    fn a_flawless_session_loses_nothing() {
        check(flawless(), [100.0, 0.0, 0.0, 0.0, 0.0, 0.0], None);
        let unknown_startup = ScoreInput {
            startup_ms: None,
            ..flawless()
        };
        check(unknown_startup, [100.0, 0.0, 0.0, 0.0, 0.0, 0.0], None);
        let two_seconds = ScoreInput {
            startup_ms: Some(2_000),
            ..flawless()
        };
        check(two_seconds, [100.0, 0.0, 0.0, 0.0, 0.0, 0.0], None);
    }

    #[test]
    fn a_technical_failure_takes_all() {
        for error_class in [None, Some(ErrorClass::Technical), Some(ErrorClass::Unknown)] {
            let before = ScoreInput {
                failed: true,
                error_class,
                known_ms: 4_000,
                ..ScoreInput::default()
            };
            check(before, [0.0, 100.0, 0.0, 0.0, 0.0, 0.0], Some("availability"));
            let after = ScoreInput {
                failed: true,
                error_class,
                startup_ms: Some(30_000),
                ..flawless()
            };
            check(after, [0.0, 100.0, 0.0, 0.0, 0.0, 0.0], Some("availability"));
        }
    }

    #[test]
    fn an_exit_before_the_first_frame_is_half_and_pays_for_its_wait() {
        let exit = |wait_ms| ScoreInput {
            exit_before_start: true,
            exit_wait_ms: Some(wait_ms),
            known_ms: wait_ms,
            ..ScoreInput::default()
        };
        check(exit(1_500), [50.0, 50.0, 0.0, 0.0, 0.0, 0.0], Some("availability"));
        check(exit(12_000), [27.51, 38.93, 33.56, 0.0, 0.0, 0.0], Some("availability"));
        check(exit(40_000), [5.16, 22.18, 72.66, 0.0, 0.0, 0.0], Some("startup"));
        check(exit(400_000_000), [0.0, 0.0, 100.0, 0.0, 0.0, 0.0], Some("startup"));
    }

    #[test]
    fn a_low_picture_and_changes_to_it_are_charged_to_the_picture() {
        let lowest = ScoreInput {
            picture_quality: Some(0.0),
            ..flawless()
        };
        check(lowest, [70.0, 0.0, 0.0, 0.0, 0.0, 30.0], Some("picture"));
        let restless = ScoreInput {
            switches_down: 10,
            ..flawless()
        };
        check(restless, [95.11, 0.0, 0.0, 0.0, 0.0, 4.89], Some("picture"));
        let not_a_number = ScoreInput {
            picture_quality: Some(f64::NAN),
            ..flawless()
        };
        check(not_a_number, [100.0, 0.0, 0.0, 0.0, 0.0, 0.0], None);
    }

    #[test]
    fn interruptions_past_twenty_cost_no_more() {
        let often = |count| {
            rounded(ScoreInput {
                stall_conn_count: count,
                ..flawless()
            })
        };
        assert_eq!(often(20), often(500));
        assert_ne!(often(19), often(20));
    }

    #[test]
    fn no_score_where_it_would_mislead() {
        let cases = [
            ScoreInput {
                failed: true,
                error_class: Some(ErrorClass::Business),
                ..flawless()
            },
            ScoreInput {
                early_exit: true,
                exit_before_start: true,
                played: false,
                ..flawless()
            },
            ScoreInput {
                is_bot: true,
                ..flawless()
            },
            ScoreInput {
                known_ms: 999,
                ..flawless()
            },
            ScoreInput {
                played: false,
                ..flawless()
            },
        ];
        for input in cases {
            assert_eq!(rounded(input), None, "{input:?}");
        }
        let recovered = ScoreInput {
            error_class: Some(ErrorClass::Business),
            ..flawless()
        };
        assert!(rounded(recovered).is_some(), "a business error that ended nothing");
    }

    #[test]
    fn a_good_session_meets_every_threshold() {
        let good = |input: ScoreInput<'_>| score(&input, &ScoreParams::default()).map(|score| score.is_good);
        let stalled = |stall_conn_ms, playing_ms| ScoreInput {
            stall_conn_ms,
            playing_ms,
            ..flawless()
        };
        let shown = |device_type, bps| ScoreInput {
            device_type: Some(device_type),
            avg_bitrate_bps: Some(bps),
            ..flawless()
        };
        let left = |wait_ms| ScoreInput {
            exit_before_start: true,
            exit_wait_ms: Some(wait_ms),
            known_ms: wait_ms,
            ..ScoreInput::default()
        };
        for (input, expected) in [
            (flawless(), true),
            (
                ScoreInput {
                    startup_ms: Some(5_000),
                    ..flawless()
                },
                true,
            ),
            (
                ScoreInput {
                    startup_ms: Some(5_001),
                    ..flawless()
                },
                false,
            ),
            (stalled(4, 996), true),
            (stalled(5, 995), false),
            (
                ScoreInput {
                    failed: true,
                    ..flawless()
                },
                false,
            ),
            (left(10_000), true),
            (left(10_001), false),
            (shown("mobile", 365_000), true),
            (shown("mobile", 364_999), false),
            (shown("desktop", 729_999), false),
            (shown("tablet", 730_000), true),
            (shown("tv", 1_999_999), false),
            (shown("console", 2_000_000), true),
        ] {
            assert_eq!(good(input), Some(expected), "{input:?}");
        }
    }

    fn inputs() -> impl Strategy<Value = ScoreInput<'static>> {
        let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.1));
        let waits = (prop::option::of(0..900_000_i64), prop::option::of(0..900_000_i64));
        let stalls = (0..7_200_000_i64, 0..600_000_i64, 0..40_i64);
        let picture = (prop::option::of(0.0..=1.0_f64), 0..2_000_i64);
        (flags, waits, stalls, picture).prop_map(|(flags, waits, stalls, picture)| ScoreInput {
            played: flags.0,
            exit_before_start: !flags.0 && flags.1,
            failed: flags.2,
            known_ms: 60_000,
            startup_ms: waits.0,
            exit_wait_ms: waits.1,
            playing_ms: stalls.0,
            stall_conn_ms: stalls.1,
            stall_conn_count: stalls.2,
            picture_quality: picture.0,
            switches_down: picture.1,
            ..ScoreInput::default()
        })
    }

    /// The same session with one input made worse by `by`.
    fn worse(input: ScoreInput<'static>, which: u8, by: i64) -> ScoreInput<'static> {
        let more = |value: Option<i64>| Some(value.unwrap_or(0) + by);
        match which {
            0 => ScoreInput {
                startup_ms: more(input.startup_ms),
                ..input
            },
            1 => ScoreInput {
                exit_wait_ms: more(input.exit_wait_ms),
                ..input
            },
            2 => ScoreInput {
                stall_conn_ms: input.stall_conn_ms + by,
                ..input
            },
            3 => ScoreInput {
                stall_conn_count: input.stall_conn_count + by,
                ..input
            },
            4 => ScoreInput {
                switches_down: input.switches_down + by,
                ..input
            },
            5 => ScoreInput {
                playing_ms: (input.playing_ms - by).max(0),
                ..input
            },
            6 => {
                let quality = input.picture_quality.unwrap_or(1.0);
                ScoreInput {
                    picture_quality: Some((quality - by as f64 / 100_000.0).max(0.0)),
                    ..input
                }
            }
            _ => ScoreInput { failed: true, ..input },
        }
    }

    proptest! {
        #[test]
        fn losses_are_never_negative_and_add_up_in_any_order(input in inputs()) {
            let Some(score) = score(&input, &ScoreParams::default()) else { return Ok(()) };
            let losses = [
                score.loss_availability,
                score.loss_startup,
                score.loss_stall_time,
                score.loss_interruptions,
                score.loss_picture,
            ];
            prop_assert!((0.0..=100.0).contains(&score.score));
            prop_assert!(losses.iter().all(|loss| *loss >= 0.0), "{losses:?}");
            prop_assert_eq!(losses.iter().sum::<f64>(), 100.0 - score.score);
            prop_assert_eq!(losses.iter().rev().sum::<f64>() + score.score, 100.0);
            let largest = losses.iter().copied().fold(0.0, f64::max);
            let named = REASONS.iter().zip(losses).find(|(_, loss)| *loss == largest && largest > 0.0);
            prop_assert_eq!(score.top_reason, named.map(|(reason, _)| *reason));
        }

        #[test]
        fn nothing_made_worse_scores_higher(input in inputs(), which in 0..8_u8, by in 1..100_000_i64) {
            let params = ScoreParams::default();
            let (before, after) = (score(&input, &params), score(&worse(input, which, by), &params));
            if let (Some(before), Some(after)) = (before, after) {
                prop_assert!(after.score <= before.score, "{} > {}", after.score, before.score);
                prop_assert!(before.is_good || !after.is_good);
            }
        }

        #[test]
        fn a_sum_over_sessions_is_the_same_in_every_order(inputs in prop::collection::vec(inputs(), 1..200)) {
            let params = ScoreParams::default();
            let scores: Vec<f64> = inputs.iter().filter_map(|input| score(input, &params)).map(|score| score.score).collect();
            let mut ascending = scores.clone();
            ascending.sort_by(f64::total_cmp);
            prop_assert_eq!(scores.iter().sum::<f64>(), ascending.iter().sum::<f64>());
        }
    }
}

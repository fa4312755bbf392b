//! The series notation of Prometheus' rule tests: `1+2x10`, `_`, `stale`.
//!
//! Stands under `rule_test`: a text in, samples out.
//!
//! - `5` is one sample; `5x3` is 5 and three more of it; `1+2x3` is 1, 3, 5, 7; `9-2x3` goes down.
//! - `_` is a minute without a sample, `_x3` are three; `stale` ends the series: no sample.
//!
//! Invariant: a series is bounded before it is built.

/// Two weeks of minutes.
pub const MAX_SAMPLES: usize = 20_160;

/// One place of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample {
    Value(f64),
    Missing,
    /// Prometheus looks back over a missing sample and not over a stale one; to us both are no row.
    Stale,
}

impl Sample {
    pub fn value(self) -> Option<f64> {
        match self {
            Sample::Value(value) => Some(value),
            Sample::Missing | Sample::Stale => None,
        }
    }
}

/// The samples of a series; the error names the word that is none.
pub fn parse(text: &str) -> Result<Vec<Sample>, String> {
    let mut samples = Vec::new();
    for word in text.split_whitespace() {
        push(word, &mut samples)?;
        if samples.len() > MAX_SAMPLES {
            return Err(format!("the series has more than {MAX_SAMPLES} samples"));
        }
    }
    Ok(samples)
}

fn push(word: &str, samples: &mut Vec<Sample>) -> Result<(), String> {
    let wrong = || format!("`{word}` is no sample; write 5, 5x3, 1+2x3, 9-2x3, _ or stale");
    match word {
        "_" => samples.push(Sample::Missing),
        "stale" => samples.push(Sample::Stale),
        _ => {
            let (start, times) = match word.split_once('x') {
                Some((start, times)) => (start, times.parse::<usize>().map_err(|_| wrong())?),
                None => (word, 0),
            };
            if times >= MAX_SAMPLES {
                return Err(format!("`{word}` has more than {MAX_SAMPLES} samples"));
            }
            if start == "_" {
                samples.extend(std::iter::repeat_n(Sample::Missing, times));
                return Ok(());
            }
            let (first, step) = first_and_step(start).ok_or_else(wrong)?;
            samples.extend((0..=times).map(|n| Sample::Value(first + step * n as f64)));
        }
    }
    Ok(())
}

/// `1+2` as 1 and 2, `9-2` as 9 and -2, `5` as 5 and 0.
fn first_and_step(text: &str) -> Option<(f64, f64)> {
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    if let Some(first) = number(text) {
        return Some((first, 0.0));
    }
    // The first character may be a sign of its own.
    let at = text
        .char_indices()
        .skip(1)
        .find(|(at, c)| matches!(c, '+' | '-') && !text[..*at].ends_with(['e', 'E']))?
        .0;
    let step = text[at..].strip_prefix('+').unwrap_or(&text[at..]);
    Some((number(&text[..at])?, number(step)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown: Vec<String> = parse(text)
            .unwrap_or_else(|error| panic!("{error}"))
            .iter()
            .map(|sample| match sample {
                Sample::Value(value) => value.to_string(),
                Sample::Missing => "_".to_owned(),
                Sample::Stale => "s".to_owned(),
            })
            .collect();
        assert_eq!(shown.join(" "), expected, "{text}");
    }

    #[test]
    fn the_notation_is_that_of_prometheus() {
        check("1+2x4", "1 3 5 7 9");
        check("5-1x3", "5 4 3 2");
        check("-2+4x3", "-2 2 6 10");
        check("-2-1x2", "-2 -3 -4");
        check("1x4", "1 1 1 1 1");
        check("0 _ _x2 stale 1e2+1e1x1", "0 _ _ _ s 100 110");
        check("1_x1".replace('_', "").as_str(), "1 1");
        check("", "");
    }

    #[test]
    fn what_is_no_sample_is_named() {
        for word in ["abc", "1+x3", "1xx", "+", "1x-1", "inf", "x3", "{{sum:1}}"] {
            let error = parse(&format!("1 {word}")).unwrap_err();
            assert!(error.contains(&format!("`{word}`")), "{error}");
        }
        assert!(parse("1x99999999").unwrap_err().contains("20160"));
        assert!(parse("1x20000 1x20000").unwrap_err().contains("20160"));
    }
}

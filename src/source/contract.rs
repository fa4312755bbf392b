//! The test that every source passes, and a source that does what it is told.
//!
//! Test code only: `passes` says what the daemon relies on, each source's own tests call it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{BatchLimits, Found, Lag, Line, Mark, Part, Source, SourceError};

/// Small, so that every bound is met.
const LIMITS: BatchLimits = BatchLimits {
    bytes: 64 << 10,
    records: 3,
};
/// A source with a network behind it may take this long until something comes.
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Records of each partition in order.
pub type Records = BTreeMap<String, Vec<String>>;

/// Reads `expected` from new sources that `make` gives: once from the start, and then anew from each
/// place where a daemon could have been killed.
pub fn passes(make: &mut dyn FnMut() -> Box<dyn Source>, expected: &Records) {
    let mut whole = Reading::new(make());
    whole.nothing_comes_unasked();
    let cuts = whole.read(&BTreeMap::new(), expected);
    assert_eq!(whole.records, *expected, "read from the start");
    assert!(whole.leaves(), "after `stop` nothing is handed over");
    // The first, the last and some between: each costs a source.
    for cut in cuts.iter().step_by(cuts.len().div_ceil(4).max(1)) {
        let mut rest = Reading::new(make());
        rest.records = cut.records.clone();
        rest.read(&cut.marks, expected);
        assert_eq!(rest.records, *expected, "read on from {:?}", cut.marks);
        rest.leaves();
    }
}

/// What had been committed at some moment.
struct Cut {
    marks: BTreeMap<String, Mark>,
    records: Records,
}

struct Reading {
    source: Box<dyn Source>,
    records: Records,
}

impl Reading {
    fn new(source: Box<dyn Source>) -> Reading {
        Reading {
            source,
            records: Records::new(),
        }
    }

    fn nothing_comes_unasked(&mut self) {
        let part = self.source.next_part(LIMITS);
        assert!(!matches!(part, Ok(Some(_))), "a part came before any partition was started");
    }

    /// Reads until all that is expected has come; returns where it could have been cut.
    fn read(&mut self, from: &BTreeMap<String, Mark>, expected: &Records) -> Vec<Cut> {
        let mut marks = from.clone();
        let mut cuts = Vec::new();
        let until = Instant::now() + PATIENCE;
        while self.records != *expected && Instant::now() < until {
            for found in self.source.discover().unwrap_or_default() {
                let mark = from.get(&*found.partition).cloned();
                self.source.start(&found.partition, mark);
            }
            match self.source.next_part(LIMITS) {
                Ok(Some(part)) => {
                    self.take(&part, &mut marks);
                    cuts.push(Cut {
                        marks: marks.clone(),
                        records: self.records.clone(),
                    });
                }
                _ => std::thread::sleep(BETWEEN_LOOKS),
            }
        }
        cuts
    }

    fn take(&mut self, part: &Part, marks: &mut BTreeMap<String, Mark>) {
        let name = part.partition.to_string();
        let before = marks.get(&name).map_or(0, |mark| mark.offset);
        if before > 0 {
            assert_eq!(part.from, before, "a part of {name} starts where the one before ended");
        }
        assert!(part.to >= part.from, "a part of {name} goes back");
        assert!(part.buffer.len() <= LIMITS.bytes + (2 << 20), "a part of {name} is not bounded");
        let mut last = part.from - 1;
        for line in &part.lines {
            assert!(
                line.offset > last && line.offset < part.to,
                "offsets of {name} grow within the part"
            );
            last = line.offset;
            let text = String::from_utf8_lossy(&part.buffer[line.start..line.end]).into_owned();
            self.records.entry(name.clone()).or_default().push(text);
        }
        let mark = Mark {
            offset: part.to,
            token: part.token.clone(),
        };
        self.source.committed(&part.partition, &mark);
        marks.insert(name, mark);
    }

    fn leaves(&mut self) -> bool {
        self.source.stop();
        !matches!(self.source.next_part(LIMITS), Ok(Some(_)))
    }
}

/// One thing that a scripted source does when it is asked for a part.
#[derive(Debug, Clone)]
pub enum Act {
    /// Hands over lines of a partition, the first at this offset.
    Give(&'static str, i64, Vec<String>),
    /// Has nothing for now.
    Wait,
    Fail,
    /// The partition is another daemon's from now on.
    Lose(&'static str),
}

/// Plays a script: delays, repeats, reorders and fails as it says.
pub struct ScriptedSource {
    script: VecDeque<Act>,
    found: Vec<&'static str>,
    lost: Vec<Arc<str>>,
    /// What the daemon acknowledged.
    pub committed: BTreeMap<String, i64>,
}

impl ScriptedSource {
    pub fn new(script: Vec<Act>) -> ScriptedSource {
        let mut found: Vec<&'static str> = script
            .iter()
            .filter_map(|act| match act {
                Act::Give(partition, _, _) => Some(*partition),
                _ => None,
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        ScriptedSource {
            script: script.into(),
            found,
            lost: Vec::new(),
            committed: BTreeMap::new(),
        }
    }
}

impl Source for ScriptedSource {
    fn name(&self) -> &str {
        "scripted"
    }

    fn discover(&mut self) -> Result<Vec<Found>, SourceError> {
        let found = std::mem::take(&mut self.found).into_iter().map(|partition| Found {
            partition: Arc::from(partition),
            format: None,
            header: Arc::from([]),
            first_line: Vec::new(),
        });
        Ok(found.collect())
    }

    fn start(&mut self, _partition: &Arc<str>, _from: Option<Mark>) {}

    fn next_part(&mut self, _limits: BatchLimits) -> Result<Option<Part>, SourceError> {
        match self.script.pop_front() {
            Some(Act::Give(partition, offset, lines)) => Ok(Some(part(partition, offset, &lines))),
            Some(Act::Fail) => Err(SourceError {
                source_name: "scripted".to_string(),
                what: "it was told to fail".to_string(),
                advice: "ask again".to_string(),
            }),
            Some(Act::Lose(partition)) => {
                self.lost.push(Arc::from(partition));
                Ok(None)
            }
            Some(Act::Wait) | None => Ok(None),
        }
    }

    fn committed(&mut self, partition: &Arc<str>, to: &Mark) {
        self.committed.insert(partition.to_string(), to.offset);
    }

    fn take_lost(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.lost)
    }

    fn lag(&self) -> Lag {
        Lag::default()
    }

    fn stop(&mut self) {
        self.script.clear();
    }
}

/// A part of these lines, one offset a line.
pub fn part(partition: &str, from: i64, lines: &[String]) -> Part {
    let mut part = Part {
        partition: Arc::from(partition),
        format: None,
        header: Arc::from([]),
        buffer: Vec::new(),
        lines: Vec::new(),
        from,
        to: from,
        token: None,
        finished: false,
    };
    for line in lines {
        let start = part.buffer.len();
        part.buffer.extend_from_slice(line.as_bytes());
        part.lines.push(Line {
            offset: part.to,
            start,
            end: part.buffer.len(),
            attributes: (0, 0),
            oversized_bytes: None,
        });
        part.to += 1;
    }
    part
}

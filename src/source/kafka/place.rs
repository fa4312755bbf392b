//! Where reading of a partition begins: the lake's mark, the broker's committed offset, or the setting.
//!
//! Asked by the member when a partition starts. Pure: what the lake, the broker and the log say is
//! passed in.
//!
//! Invariant: the lake's mark wins, unless another lake has read further under the same group.
//! Invariant: records that were to be read and are gone are counted, never passed over silently.

/// Stands before the lake's id in a commit's metadata, so that other programs' metadata is not taken for a lake.
const LAKE_PREFIX: &str = "playhead-lake:";

/// Where a partition begins that nobody has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
}

/// What the group's coordinator keeps of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    pub metadata: String,
}

/// Where to read on, before the log has been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    At(i64),
    Setting(Start),
}

/// The offsets that a partition's log holds: the first one, and the one after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSpan {
    pub first: i64,
    pub end: i64,
}

/// Where reading really begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Read from here; `lost` offsets before it were wanted and are gone.
    From { offset: i64, lost: i64 },
    /// The log ends before what has been read: it is another log, or a leader has lost records.
    Beyond { wanted: i64, end: i64 },
}

/// The text that names a lake in the metadata of its commits.
pub fn metadata_of(lake_id: &str) -> String {
    format!("{LAKE_PREFIX}{lake_id}")
}

/// Where to read on: the lake's mark, the broker's offset where a lake wrote it, else the setting.
pub fn wanted(lake_mark: Option<i64>, committed: Option<&Committed>, lake_id: &str, start: Start) -> Wanted {
    let by_a_lake = committed.filter(|committed| committed.metadata.starts_with(LAKE_PREFIX));
    match (lake_mark, by_a_lake) {
        (Some(mark), Some(committed)) if committed.offset > mark && committed.metadata != metadata_of(lake_id) => {
            Wanted::At(committed.offset)
        }
        (Some(mark), _) => Wanted::At(mark),
        (None, Some(committed)) => Wanted::At(committed.offset),
        (None, None) => Wanted::Setting(start),
    }
}

/// Puts what is wanted into the log that is there.
pub fn placed(wanted: Wanted, log: LogSpan) -> Place {
    match wanted {
        Wanted::Setting(Start::Earliest) => Place::From {
            offset: log.first,
            lost: 0,
        },
        Wanted::Setting(Start::Latest) => Place::From { offset: log.end, lost: 0 },
        Wanted::At(wanted) if wanted > log.end => Place::Beyond { wanted, end: log.end },
        Wanted::At(wanted) => Place::From {
            offset: wanted.max(log.first),
            lost: (log.first - wanted).max(0),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "playhead-lake:ours";
    const OTHER: &str = "playhead-lake:other";

    #[test]
    fn the_lakes_mark_wins_unless_another_lake_went_on() {
        let check = |mark: Option<i64>, committed: Option<(i64, &str)>, expected: Wanted| {
            let committed = committed.map(|(offset, metadata)| Committed {
                offset,
                metadata: metadata.to_string(),
            });
            let got = wanted(mark, committed.as_ref(), "ours", Start::Latest);
            assert_eq!(got, expected, "mark {mark:?}, committed {committed:?}");
        };
        let setting = Wanted::Setting(Start::Latest);
        check(Some(70), None, Wanted::At(70));
        check(Some(70), Some((60, OURS)), Wanted::At(70));
        check(Some(70), Some((90, OURS)), Wanted::At(70));
        check(Some(70), Some((90, OTHER)), Wanted::At(90));
        check(Some(70), Some((70, OTHER)), Wanted::At(70));
        check(Some(70), Some((60, OTHER)), Wanted::At(70));
        check(Some(70), Some((90, "")), Wanted::At(70));
        check(Some(70), Some((90, "AgAAAZ")), Wanted::At(70));
        check(Some(0), Some((90, OURS)), Wanted::At(0));
        check(None, Some((60, OURS)), Wanted::At(60));
        check(None, Some((60, OTHER)), Wanted::At(60));
        check(None, Some((60, "")), setting);
        check(None, Some((60, "AgAAAZ")), setting);
        check(None, None, setting);
    }

    #[test]
    fn records_that_are_gone_are_counted_and_a_log_that_ends_too_early_is_told() {
        let log = LogSpan { first: 100, end: 200 };
        let check = |wanted: Wanted, expected: Place| assert_eq!(placed(wanted, log), expected, "{wanted:?}");
        check(Wanted::Setting(Start::Earliest), Place::From { offset: 100, lost: 0 });
        check(Wanted::Setting(Start::Latest), Place::From { offset: 200, lost: 0 });
        check(Wanted::At(40), Place::From { offset: 100, lost: 60 });
        check(Wanted::At(100), Place::From { offset: 100, lost: 0 });
        check(Wanted::At(150), Place::From { offset: 150, lost: 0 });
        check(Wanted::At(200), Place::From { offset: 200, lost: 0 });
        check(Wanted::At(201), Place::Beyond { wanted: 201, end: 200 });
    }
}

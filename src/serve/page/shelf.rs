//! The dashboard files as they are now: an edit is seen at the next look.
//!
//! Invariant: a file that cannot be read hides only itself, and is named.

use std::sync::{Arc, Mutex, PoisonError};

use super::Refusal;
use crate::clock::Clock;
use crate::serve::dashboard::{Dashboard, read};

/// Gives name and text of every dashboard file.
pub type Source = Box<dyn Fn() -> Result<Vec<(String, String)>, String> + Send + Sync>;

/// The files are looked at again this much later: twenty panels ask at once.
const LOOK_MS: i64 = 1_000;
/// The overview comes first, the others by title.
const FIRST: &str = "playhead-noc";

/// What stands on the shelf.
#[derive(Default)]
pub struct Content {
    pub dashboards: Vec<Arc<Dashboard>>,
    /// One sentence for each file that is not shown.
    pub complaints: Vec<String>,
}

struct Seen {
    looked_at_ms: i64,
    files: Vec<(String, String)>,
    content: Arc<Content>,
}

pub struct Shelf {
    source: Source,
    clock: Arc<dyn Clock>,
    seen: Mutex<Option<Seen>>,
}

impl Shelf {
    pub fn new(source: Source, clock: Arc<dyn Clock>) -> Shelf {
        Shelf {
            source,
            clock,
            seen: Mutex::default(),
        }
    }

    /// Reads the files if it is time; parses them only if they have changed.
    pub fn look(&self) -> Arc<Content> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = self.clock.now_ms();
        if let Some(known) = seen.as_ref().filter(|known| (0..LOOK_MS).contains(&(now_ms - known.looked_at_ms))) {
            return Arc::clone(&known.content);
        }
        let files = match (self.source)() {
            Ok(files) => files,
            Err(complaint) => {
                return Arc::new(Content {
                    dashboards: Vec::new(),
                    complaints: vec![complaint],
                });
            }
        };
        if let Some(known) = seen.as_mut().filter(|known| known.files == files) {
            known.looked_at_ms = now_ms;
            return Arc::clone(&known.content);
        }
        let content = Arc::new(parsed(&files));
        for complaint in &content.complaints {
            tracing::warn!("{complaint}");
        }
        *seen = Some(Seen {
            looked_at_ms: now_ms,
            files,
            content: Arc::clone(&content),
        });
        content
    }

    pub fn find(&self, uid: &str) -> Result<Arc<Dashboard>, Refusal> {
        let content = self.look();
        let found = content.dashboards.iter().find(|dashboard| dashboard.uid == uid).cloned();
        found.ok_or_else(|| match content.complaints.first() {
            Some(complaint) => Refusal::NotFound(format!("there is no dashboard {uid:?}; {complaint}")),
            None => Refusal::NotFound(format!(
                "there is no dashboard {uid:?}; GET /api/dashboards lists those that there are"
            )),
        })
    }
}

fn parsed(files: &[(String, String)]) -> Content {
    let mut content = Content::default();
    for (name, text) in files {
        match read(text) {
            Ok(dashboard) => match content.dashboards.iter().find(|known| known.uid == dashboard.uid) {
                Some(known) => content.complaints.push(format!(
                    "{name}: uid {:?} is that of {:?} too; give it another",
                    known.uid, known.title
                )),
                None => content.dashboards.push(Arc::new(dashboard)),
            },
            Err(error) => content.complaints.push(format!("{name}: {error}")),
        }
    }
    content
        .dashboards
        .sort_by_key(|dashboard| (dashboard.uid != FIRST, dashboard.title.clone()));
    content
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::clock::ManualClock;

    fn file(uid: &str, title: &str) -> (String, String) {
        let text = format!(r#"{{"uid": "{uid}", "title": "{title}", "panels": [], "time": {{"from": "now-1h", "to": "now"}}}}"#);
        (format!("{uid}.json"), text)
    }

    #[test]
    fn the_overview_stands_first_and_a_broken_file_hides_itself_alone() {
        let files = vec![
            file("b", "Zebra"),
            ("c.json".to_owned(), "{".to_owned()),
            file(FIRST, "Noc"),
            file("b", "Again"),
            file("a", "Ant"),
        ];
        let content = parsed(&files);
        let titles: Vec<&str> = content.dashboards.iter().map(|dashboard| dashboard.title.as_str()).collect();
        assert_eq!(titles, ["Noc", "Ant", "Zebra"]);
        assert!(content.complaints[0].starts_with("c.json: "), "{:?}", content.complaints);
        assert!(content.complaints[1].contains("give it another"), "{:?}", content.complaints);
    }

    #[test]
    fn an_edit_is_seen_within_a_second_and_the_files_are_not_read_more_often() {
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&reads);
        let clock = Arc::new(ManualClock::at(0));
        let source: Source = Box::new(move || {
            Ok(vec![file(
                "a",
                if counted.fetch_add(1, Ordering::Relaxed) < 2 {
                    "Old"
                } else {
                    "New"
                },
            )])
        });
        let shelf = Shelf::new(source, Arc::clone(&clock) as Arc<dyn Clock>);
        for (at_ms, title, expected) in [(0, "Old", 1), (999, "Old", 1), (1_000, "Old", 2), (2_000, "New", 3)] {
            clock.set(at_ms);
            assert_eq!(shelf.find("a").unwrap().title, title);
            assert_eq!(reads.load(Ordering::Relaxed), expected);
        }
    }
}

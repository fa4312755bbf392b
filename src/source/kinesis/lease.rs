//! Who of several daemons reads which shard: the rules.
//!
//! A lease is a small JSON object on the object store, one a shard. Its owner renews it; one that is not
//! renewed for the lease time is anybody's. Each daemon takes its share of the shards, rounded up, and
//! gives back what is more when another daemon joins. Pure: what was seen and for how long is passed in.
//!
//! Invariant: a lease counts as stale by the time that *we* saw no change of it, never by the clock of
//! its owner, so clocks that differ or jump steal nothing.
//! Invariant: every change of owner raises the epoch, so that what an earlier owner does can be told apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::source::Mark;

/// The token of a mark that says: read to its end.
pub const END: &str = "end";

/// A lease as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// A daemon's id; `None`: given back.
    pub owner: Option<String>,
    /// Grows with every change of owner.
    pub epoch: u64,
    /// By the owner's clock, for people who look; no rule reads it.
    pub renewed_at_ms: i64,
    /// What the owner last knew to be committed. The lake knows better; this tells the others when the
    /// shard is read to its end.
    pub mark: Option<LeaseMark>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseMark {
    pub offset: i64,
    pub token: Option<String>,
}

impl From<&Mark> for LeaseMark {
    fn from(mark: &Mark) -> LeaseMark {
        LeaseMark {
            offset: mark.offset,
            token: mark.token.as_deref().map(str::to_owned),
        }
    }
}

impl Lease {
    pub fn is_ended(&self) -> bool {
        self.mark.as_ref().is_some_and(|mark| mark.token.as_deref() == Some(END))
    }
}

/// What one daemon sees when a round begins.
#[derive(Debug)]
pub struct View<'a> {
    pub me: &'a str,
    /// Daemons that are alive, we among them.
    pub daemons: usize,
    /// Shards that may be read now, whoever reads them.
    pub wanted: &'a BTreeSet<Arc<str>>,
    /// Shards whose lease is ours.
    pub held: &'a BTreeSet<Arc<str>>,
    pub leases: &'a BTreeMap<Arc<str>, Seen>,
}

/// A lease and what we know of its owner.
#[derive(Debug, Clone)]
pub struct Seen {
    pub lease: Lease,
    /// Nothing changed for the lease time.
    pub is_stale: bool,
    /// Ours since before this process began.
    pub is_from_earlier_life: bool,
}

/// What to do in a round.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Steps {
    pub take: Vec<Arc<str>>,
    pub give_back: Vec<Arc<str>>,
}

/// The steps that lead towards an even share.
pub fn decide(view: &View) -> Steps {
    let is_ended = |shard: &Arc<str>| view.leases.get(shard).is_some_and(|seen| seen.lease.is_ended());
    let all = view.wanted.union(view.held).filter(|shard| !is_ended(shard)).count();
    let share = all.div_ceil(view.daemons.max(1));
    if view.held.len() > share {
        let give_back = view.held.iter().skip(share).cloned().collect();
        return Steps {
            take: Vec::new(),
            give_back,
        };
    }
    let free = view.wanted.iter().filter(|shard| !view.held.contains(*shard) && !is_ended(shard));
    let mut free: Vec<(bool, Arc<str>)> = free
        .filter_map(|shard| match view.leases.get(shard) {
            None => Some((true, Arc::clone(shard))),
            Some(seen) if is_free(view.me, seen) => Some((!seen.is_from_earlier_life, Arc::clone(shard))),
            Some(_) => None,
        })
        .collect();
    // Ours from an earlier life first: nobody else has read on.
    free.sort();
    Steps {
        take: free.into_iter().take(share - view.held.len()).map(|(_, shard)| shard).collect(),
        give_back: Vec::new(),
    }
}

fn is_free(me: &str, seen: &Seen) -> bool {
    match seen.lease.owner.as_deref() {
        None => true,
        Some(owner) if owner == me && seen.is_from_earlier_life => true,
        Some(_) => seen.is_stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(shards: &[&str]) -> BTreeSet<Arc<str>> {
        shards.iter().map(|shard| Arc::from(*shard)).collect()
    }

    fn seen(owner: Option<&str>, is_stale: bool, is_from_earlier_life: bool) -> Seen {
        let lease = Lease {
            owner: owner.map(str::to_owned),
            epoch: 1,
            renewed_at_ms: 0,
            mark: None,
        };
        Seen {
            lease,
            is_stale,
            is_from_earlier_life,
        }
    }

    /// Shards `a` to `d` are wanted. Gives what is taken, then what is given back.
    fn check(daemons: usize, held: &[&str], leases: &[(&str, Seen)], expected: (&[&str], &[&str])) {
        let leases = leases.iter().map(|(shard, seen)| (Arc::from(*shard), seen.clone())).collect();
        let steps = decide(&View {
            me: "me",
            daemons,
            wanted: &set(&["a", "b", "c", "d"]),
            held: &set(held),
            leases: &leases,
        });
        let names = |shards: &[&str]| shards.iter().map(|shard| Arc::from(*shard)).collect::<Vec<Arc<str>>>();
        assert_eq!((steps.take, steps.give_back), (names(expected.0), names(expected.1)));
    }

    #[test]
    fn one_daemon_takes_all_and_two_take_half_each() {
        check(1, &[], &[], (&["a", "b", "c", "d"], &[]));
        check(2, &[], &[], (&["a", "b"], &[]));
        check(3, &["a"], &[], (&["b"], &[]));
        check(8, &[], &[], (&["a"], &[]));
    }

    #[test]
    fn what_another_one_renews_is_left_alone_until_it_is_stale() {
        let fresh = || seen(Some("other"), false, false);
        check(2, &[], &[("a", fresh()), ("b", fresh())], (&["c", "d"], &[]));
        check(
            1,
            &["c", "d"],
            &[("a", fresh()), ("b", seen(Some("other"), true, false))],
            (&["b"], &[]),
        );
        check(2, &[], &[("a", seen(None, false, false))], (&["a", "b"], &[]));
    }

    #[test]
    fn the_surplus_is_given_back_when_another_daemon_joins() {
        check(2, &["a", "b", "c", "d"], &[], (&[], &["c", "d"]));
        check(4, &["a", "b"], &[], (&[], &["b"]));
        check(2, &["a", "b"], &[], (&[], &[]));
    }

    #[test]
    fn after_a_restart_our_own_leases_come_first_and_at_once() {
        let ours = seen(Some("me"), false, true);
        check(2, &[], &[("d", ours.clone()), ("c", ours)], (&["c", "d"], &[]));
        // A lease in our name that a later process holds is not ours: two daemons have one id.
        check(4, &[], &[("a", seen(Some("me"), false, false))], (&["b"], &[]));
    }

    #[test]
    fn a_shard_read_to_its_end_is_nobodys_business() {
        let mut ended = seen(None, false, false);
        ended.lease.mark = Some(LeaseMark {
            offset: 7,
            token: Some(END.to_owned()),
        });
        check(2, &[], &[("a", ended.clone()), ("b", ended)], (&["c"], &[]));
    }

    #[test]
    fn a_lease_reads_back_as_it_was_written() {
        let text = r#"{"owner":"one","epoch":3,"renewed_at_ms":5,"mark":{"offset":7,"token":"4959"}}"#;
        let lease: Lease = serde_json::from_str(text).unwrap();
        assert_eq!((lease.epoch, lease.is_ended()), (3, false));
        assert_eq!(serde_json::to_string(&lease).unwrap(), text);
    }
}

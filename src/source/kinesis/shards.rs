//! The family of a stream's shards, and which of them may be read.
//!
//! A shard that is split or merged is closed and goes on in its children. Records of one player keep
//! their order only if a child waits until its parents have been read to their end and committed.
//! Pure: listings and what happened are passed in.
//!
//! Invariant: no shard is offered before all its parents are done; a parent that the stream has
//! forgotten is offered too, so that the lake can say whether it had been read to its end.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A shard as the stream lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    pub id: Arc<str>,
    /// None, one (split), or two (merge).
    pub parents: Vec<Arc<str>>,
}

/// How far we are with a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Waiting,
    /// Handed out by `discover`; the lake has not said yet where to begin.
    Offered,
    Reading,
    /// Handed over to its end, which is not committed yet.
    Ended,
    /// Read to its end and committed: its children may start.
    Done,
}

#[derive(Debug)]
struct Member {
    parents: Vec<Arc<str>>,
    stage: Stage,
    is_listed: bool,
    /// The lake held a mark of it: records of its children after that mark must not be skipped.
    was_known: bool,
}

/// All shards that matter: those listed, and the parents of those.
#[derive(Debug, Default)]
pub struct Family {
    members: BTreeMap<Arc<str>, Member>,
}

impl Family {
    /// Takes in what the stream lists now.
    pub fn update(&mut self, listed: Vec<Shard>) {
        for member in self.members.values_mut() {
            member.is_listed = false;
        }
        for shard in listed {
            for parent in &shard.parents {
                self.member(parent);
            }
            let member = self.member(&shard.id);
            member.parents = shard.parents;
            member.is_listed = true;
        }
        self.forget_the_old();
    }

    fn member(&mut self, id: &Arc<str>) -> &mut Member {
        self.members.entry(Arc::clone(id)).or_insert_with(|| Member {
            parents: Vec::new(),
            stage: Stage::Waiting,
            is_listed: false,
            was_known: false,
        })
    }

    /// A shard that is neither listed nor the parent of a listed one matters no more, once it is done or
    /// was never begun.
    fn forget_the_old(&mut self) {
        let listed = self.members.values().filter(|member| member.is_listed);
        let parents: BTreeSet<Arc<str>> = listed.flat_map(|member| member.parents.iter().cloned()).collect();
        self.members.retain(|id, member| {
            let is_idle = matches!(member.stage, Stage::Waiting | Stage::Done);
            member.is_listed || parents.contains(id) || !is_idle
        });
    }

    pub fn stage(&self, id: &str) -> Option<Stage> {
        self.members.get(id).map(|member| member.stage)
    }

    pub fn set_stage(&mut self, id: &str, stage: Stage) {
        if let Some(member) = self.members.get_mut(id) {
            member.stage = stage;
        }
    }

    /// All shards that matter.
    pub fn ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.members.keys()
    }

    /// The lake held a mark of the shard.
    pub fn set_known(&mut self, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.was_known = true;
        }
    }

    /// The stream still has it.
    pub fn is_listed(&self, id: &str) -> bool {
        self.members.get(id).is_some_and(|member| member.is_listed)
    }

    /// A parent of it was read in an earlier life, so all of its records are new to the lake.
    pub fn continues_a_known_shard(&self, id: &str) -> bool {
        let parents = self.members.get(id).map_or(&[][..], |member| &member.parents);
        parents
            .iter()
            .any(|parent| self.members.get(parent).is_some_and(|parent| parent.was_known))
    }

    /// Shards with nothing before them that is still to be read; done ones are left out.
    pub fn ready(&self) -> Vec<Arc<str>> {
        let is_done = |parent: &Arc<str>| self.members.get(parent).is_none_or(|parent| parent.stage == Stage::Done);
        let open = self.members.iter().filter(|(_, member)| member.stage != Stage::Done);
        open.filter(|(_, member)| member.parents.iter().all(is_done))
            .map(|(id, _)| Arc::clone(id))
            .collect()
    }
}

/// Order of two sequence numbers: they are whole numbers of any length.
pub fn compare_sequences(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: &str, parents: &[&str]) -> Shard {
        Shard {
            id: id.into(),
            parents: parents.iter().map(|parent| Arc::from(*parent)).collect(),
        }
    }

    fn family(shards: &[(&str, &[&str])]) -> Family {
        let mut family = Family::default();
        family.update(shards.iter().map(|(id, parents)| shard(id, parents)).collect());
        family
    }

    fn ready(family: &Family) -> Vec<String> {
        family.ready().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn children_of_a_split_wait_until_the_end_of_their_parent_is_committed() {
        let mut family = family(&[("a", &[]), ("b", &["a"]), ("c", &["a"])]);
        for stage in [Stage::Waiting, Stage::Offered, Stage::Reading, Stage::Ended] {
            family.set_stage("a", stage);
            assert_eq!(ready(&family), ["a"], "{stage:?}");
        }
        family.set_stage("a", Stage::Done);
        assert_eq!(ready(&family), ["b", "c"]);
    }

    #[test]
    fn a_merged_shard_waits_for_both_parents() {
        let mut family = family(&[("a", &[]), ("b", &[]), ("c", &["a", "b"])]);
        family.set_stage("b", Stage::Done);
        assert_eq!(ready(&family), ["a"]);
        family.set_stage("a", Stage::Done);
        assert_eq!(ready(&family), ["c"]);
    }

    #[test]
    fn grandchildren_wait_for_their_parents_not_for_their_grandparents_alone() {
        let mut family = family(&[("a", &[]), ("b", &["a"]), ("c", &["b"])]);
        family.set_stage("a", Stage::Done);
        assert_eq!(ready(&family), ["b"]);
    }

    #[test]
    fn a_parent_that_the_stream_forgot_is_asked_of_the_lake_first() {
        let mut family = family(&[("c", &["a", "b"])]);
        assert_eq!(ready(&family), ["a", "b"]);
        assert!(!family.is_listed("a") && family.is_listed("c"));
        family.set_stage("a", Stage::Done);
        family.set_stage("b", Stage::Done);
        assert_eq!(ready(&family), ["c"]);
    }

    #[test]
    fn what_matters_no_more_is_forgotten_and_what_is_being_read_is_not() {
        let mut family = family(&[("a", &[]), ("b", &["a"]), ("c", &["b"])]);
        family.set_stage("a", Stage::Done);
        family.set_stage("b", Stage::Reading);
        family.update(vec![shard("c", &["b"])]);
        assert_eq!((family.stage("a"), family.stage("b")), (None, Some(Stage::Reading)));
        assert_eq!(ready(&family), ["b"]);
        family.update(vec![]);
        assert_eq!((family.stage("b"), family.stage("c")), (Some(Stage::Reading), None));
    }

    #[test]
    fn a_child_of_a_shard_that_the_lake_knows_continues_it() {
        let mut family = family(&[("a", &[]), ("b", &["a"]), ("c", &[])]);
        family.set_known("a");
        assert!(family.continues_a_known_shard("b"));
        assert!(!family.continues_a_known_shard("c") && !family.continues_a_known_shard("a"));
    }

    #[test]
    fn sequence_numbers_compare_as_numbers() {
        let check = |left, right, expected| assert_eq!(compare_sequences(left, right), expected, "{left} {right}");
        check("9", "10", Ordering::Less);
        check("0010", "9", Ordering::Greater);
        check(
            "49590338271490256608559692538361571095921575989136588898",
            "49590338271490256608559692538361571095921575989136588899",
            Ordering::Less,
        );
        check("007", "7", Ordering::Equal);
        check("0", "", Ordering::Equal);
    }
}

//! Who of several daemons reads which shard: the task that keeps our leases.
//!
//! Runs on the daemon's runtime. In rounds it looks at the leases on the object store, renews ours,
//! takes and gives back as `lease::decide` says. `KinesisSource` meets it at the `Board` only.
//!
//! A change of a lease is a conditional put on the version that was seen, so of two daemons that want the
//! same lease one gets it. A store without conditional replacement (a local folder) is one machine's:
//! there the rule is plain, its one daemon reads all shards, and no lease is written.
//!
//! Invariant: a lease that could not be renewed for the lease time is lost, whether the store says so or not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use tokio::sync::Notify;

use super::lease::{Lease, LeaseMark, Seen, View, decide};
use super::reader::Shared;
use crate::clock::Clock;

/// Objects below our prefix that are looked at: leases of the largest stream, twice.
const OBJECTS_MAX: usize = 20_000;
/// A daemon that was not seen for so many lease times has gone for good: its object is removed.
const GONE_LEASE_TIMES: u32 = 20;
const ADVICE: &str = "see whether the object store of the leases can be reached and written; shards are read on while their leases last";

/// Where leases are kept.
#[derive(Debug, Clone)]
pub struct LeaseSettings {
    pub store: Arc<dyn ObjectStore>,
    /// Folder in the store, the stream's name included; all daemons of a stream have the same.
    pub prefix: String,
    /// A lease that is not renewed for so long is anybody's: 30 s.
    pub lease_time: Duration,
    /// Time between two rounds: 10 s.
    pub renew_every: Duration,
}

impl LeaseSettings {
    pub fn new(store: Arc<dyn ObjectStore>, prefix: impl Into<String>) -> LeaseSettings {
        LeaseSettings {
            store,
            prefix: prefix.into(),
            lease_time: Duration::from_secs(30),
            renew_every: Duration::from_secs(10),
        }
    }
}

/// What the source and the keeper tell each other.
#[derive(Debug, Default)]
pub struct Board {
    /// From the source: shards that may be read now.
    pub wanted: BTreeSet<Arc<str>>,
    /// From the source: what is committed, to be written into the leases.
    pub marks: BTreeMap<Arc<str>, LeaseMark>,
    /// From the source: all shards that matter still; empty until the stream was listed.
    pub family: BTreeSet<Arc<str>>,
    /// From the keeper: our shards.
    pub held: BTreeMap<Arc<str>, Held>,
    /// From the keeper: shards whose lease says that they are read to their end.
    pub ended: BTreeSet<Arc<str>>,
    /// From the keeper: shards that were ours. The source takes them out when the daemon knows.
    pub lost: BTreeSet<Arc<str>>,
    /// From the keeper: there is nobody to share with, all shards are ours.
    pub owns_all: bool,
    is_stopping: bool,
}

/// A lease of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub epoch: u64,
    /// When the last renewal that went well was begun.
    pub renewed: Instant,
}

/// The board, and a bell that brings the next round forward.
#[derive(Debug, Default)]
pub struct Desk {
    board: Mutex<Board>,
    bell: Notify,
}

impl Desk {
    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Gives all leases back and ends the keeper, in the background.
    pub fn stop(&self) {
        self.board().is_stopping = true;
        self.ring();
    }

    /// Counts leases as lost that nobody renewed in time: the store does not answer.
    pub fn drop_overdue(&self, lease_time: Duration) {
        let mut board = self.board();
        let overdue: Vec<Arc<str>> = board
            .held
            .iter()
            .filter(|(_, held)| held.renewed.elapsed() >= lease_time)
            .map(|(shard, _)| Arc::clone(shard))
            .collect();
        for shard in overdue {
            board.held.remove(&shard);
            board.lost.insert(shard);
        }
    }
}

/// A lease as last seen in the store.
struct Known {
    lease: Lease,
    version: UpdateVersion,
    changed: Instant,
    is_from_earlier_life: bool,
}

/// A daemon's sign of life as last seen.
struct Sign {
    tag: String,
    changed: Instant,
}

pub struct Keeper {
    settings: LeaseSettings,
    me: String,
    clock: Arc<dyn Clock>,
    desk: Arc<Desk>,
    shared: Arc<Shared>,
    known: BTreeMap<Arc<str>, Known>,
    /// Leases to give back with their epochs, once the daemon knows that they are lost.
    leaving: BTreeMap<Arc<str>, u64>,
    daemons: BTreeMap<String, Sign>,
    is_first_round: bool,
    is_told: bool,
}

impl Keeper {
    pub fn new(settings: LeaseSettings, me: String, clock: Arc<dyn Clock>, desk: Arc<Desk>, shared: Arc<Shared>) -> Keeper {
        Keeper {
            settings,
            me,
            clock,
            desk,
            shared,
            known: BTreeMap::new(),
            leaving: BTreeMap::new(),
            daemons: BTreeMap::new(),
            is_first_round: true,
            is_told: false,
        }
    }

    pub async fn run(mut self) {
        loop {
            if self.desk.board().is_stopping {
                let _ = tokio::time::timeout(self.settings.lease_time, self.leave()).await;
                return;
            }
            match tokio::time::timeout(self.settings.lease_time, self.round()).await {
                Ok(Ok(())) => self.is_told = false,
                Ok(Err(Error::NotImplemented { .. })) => {
                    tracing::warn!(
                        source = self.shared.source_name,
                        "the store of the leases cannot replace an object conditionally: this daemon reads all shards alone"
                    );
                    self.desk.board().owns_all = true;
                    return;
                }
                Ok(Err(error)) => self.tell(&error.to_string()),
                Err(_) => self.tell("no answer in time"),
            }
            let _ = tokio::time::timeout(self.settings.renew_every, self.desk.bell.notified()).await;
        }
    }

    fn tell(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_told, true) {
            self.shared
                .tell(format!("leases below {} cannot be kept: {why}", self.settings.prefix), ADVICE);
        }
    }

    async fn round(&mut self) -> Result<(), Error> {
        if self.is_first_round {
            self.probe().await?;
        }
        self.show_life().await?;
        self.look().await?;
        self.renew().await?;
        let steps = {
            let board = self.desk.board();
            let held: BTreeSet<Arc<str>> = board.held.keys().cloned().collect();
            let leases = self.known.iter().map(|(shard, known)| (Arc::clone(shard), self.seen(known)));
            decide(&View {
                me: &self.me,
                daemons: self.daemons_alive(),
                wanted: &board.wanted,
                held: &held,
                leases: &leases.collect(),
            })
        };
        for shard in steps.give_back {
            let mut board = self.desk.board();
            let Some(held) = board.held.remove(&shard) else { continue };
            board.lost.insert(Arc::clone(&shard));
            self.leaving.insert(shard, held.epoch);
        }
        for shard in steps.take {
            self.take(&shard).await?;
        }
        self.is_first_round = false;
        Ok(())
    }

    /// Asks for a replacement that must fail: how it fails tells what the store can do.
    async fn probe(&self) -> Result<(), Error> {
        let nothing = UpdateVersion {
            e_tag: Some("\"0\"".to_owned()),
            version: None,
        };
        match self
            .put(&self.path("probe", "probe"), "{}".to_owned(), PutMode::Update(nothing))
            .await
        {
            Err(Error::Precondition { .. } | Error::NotFound { .. }) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn path(&self, folder: &str, name: &str) -> Path {
        Path::from(self.settings.prefix.as_str()).join(folder).join(format!("{name}.json"))
    }

    async fn put(&self, path: &Path, text: String, mode: PutMode) -> Result<UpdateVersion, Error> {
        let options = PutOptions::from(mode);
        let done = self.settings.store.put_opts(path, PutPayload::from(text), options).await?;
        Ok(done.into())
    }

    async fn show_life(&self) -> Result<(), Error> {
        let text = format!("{{\"alive_at_ms\":{}}}", self.clock.now_ms());
        self.put(&self.path("daemons", &self.me), text, PutMode::Overwrite).await?;
        Ok(())
    }

    /// Brings what we know up to what the store holds; only what has changed is read.
    async fn look(&mut self) -> Result<(), Error> {
        let mut there = BTreeSet::new();
        for meta in self.list("leases").await? {
            let Some(shard) = name_of(&meta).map(Arc::<str>::from) else {
                continue;
            };
            there.insert(Arc::clone(&shard));
            let is_same = |known: &Known| known.version.e_tag.is_some() && known.version.e_tag == meta.e_tag;
            if !self.known.get(&shard).is_some_and(is_same) {
                self.read(&shard, &meta.location).await?;
            }
        }
        self.known.retain(|shard, _| there.contains(shard));
        self.remove_outlived().await?;
        let ended = self.known.iter().filter(|(_, known)| known.lease.is_ended());
        self.desk.board().ended.extend(ended.map(|(shard, _)| Arc::clone(shard)));
        self.look_at_daemons().await
    }

    /// Leases of shards that ended and that the stream has forgotten.
    async fn remove_outlived(&mut self) -> Result<(), Error> {
        let outlived: Vec<Arc<str>> = {
            let family = &self.desk.board().family;
            let ended = self.known.iter().filter(|(_, known)| known.lease.is_ended() && !family.is_empty());
            ended
                .map(|(shard, _)| shard)
                .filter(|shard| !family.contains(*shard))
                .cloned()
                .collect()
        };
        for shard in outlived {
            self.settings.store.delete(&self.path("leases", &shard)).await?;
            self.known.remove(&shard);
        }
        Ok(())
    }

    async fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>, Error> {
        let prefix = Path::from(self.settings.prefix.as_str()).join(folder);
        let mut found = self.settings.store.list_with_delimiter(Some(&prefix)).await?.objects;
        found.truncate(OBJECTS_MAX);
        Ok(found)
    }

    async fn read(&mut self, shard: &Arc<str>, path: &Path) -> Result<(), Error> {
        let answer = match self.settings.store.get(path).await {
            Err(Error::NotFound { .. }) => return Ok(()),
            answer => answer?,
        };
        let version = UpdateVersion {
            e_tag: answer.meta.e_tag.clone(),
            version: answer.meta.version.clone(),
        };
        let bytes = answer.bytes().await?;
        let Ok(lease) = serde_json::from_slice::<Lease>(&bytes) else {
            return Err(Error::Generic {
                store: "lease",
                source: format!("{path} is no lease; remove it").into(),
            });
        };
        let before = self.known.get(shard);
        let is_from_earlier_life =
            lease.owner.as_deref() == Some(&self.me) && (self.is_first_round || before.is_some_and(|known| known.is_from_earlier_life));
        let is_changed = before.is_none_or(|known| known.lease != lease);
        let changed = before.filter(|_| !is_changed).map_or_else(Instant::now, |known| known.changed);
        self.known.insert(
            Arc::clone(shard),
            Known {
                lease,
                version,
                changed,
                is_from_earlier_life,
            },
        );
        Ok(())
    }

    async fn look_at_daemons(&mut self) -> Result<(), Error> {
        let mut there = BTreeSet::new();
        for meta in self.list("daemons").await? {
            let Some(daemon) = name_of(&meta).map(str::to_owned) else {
                continue;
            };
            let tag = meta.e_tag.unwrap_or_else(|| meta.last_modified.to_rfc3339());
            let is_same = self.daemons.get(&daemon).is_some_and(|sign| sign.tag == tag);
            if !is_same {
                let changed = Instant::now();
                self.daemons.insert(daemon.clone(), Sign { tag, changed });
            }
            let silent = self.daemons.get(&daemon).map_or(Duration::ZERO, |sign| sign.changed.elapsed());
            if silent > self.settings.lease_time * GONE_LEASE_TIMES {
                self.settings.store.delete(&meta.location).await?;
            }
            there.insert(daemon);
        }
        self.daemons.retain(|daemon, _| there.contains(daemon));
        Ok(())
    }

    /// Daemons that gave a sign of life within the lease time; we are always one.
    fn daemons_alive(&self) -> usize {
        let others = self.daemons.iter().filter(|(daemon, _)| **daemon != self.me);
        1 + others.filter(|(_, sign)| sign.changed.elapsed() < self.settings.lease_time).count()
    }

    fn seen(&self, known: &Known) -> Seen {
        Seen {
            lease: known.lease.clone(),
            is_stale: known.changed.elapsed() >= self.settings.lease_time,
            is_from_earlier_life: known.is_from_earlier_life,
        }
    }

    /// Renews what is ours; gives back what has ended and what the source knows to be lost.
    async fn renew(&mut self) -> Result<(), Error> {
        let held = self.desk.board().held.clone();
        for (shard, Held { epoch, .. }) in held {
            let mark = self.desk.board().marks.get(&shard).cloned();
            let is_ended = mark.as_ref().is_some_and(|mark| mark.token.as_deref() == Some(super::lease::END));
            let owner = (!is_ended).then(|| self.me.clone());
            let asked = Instant::now();
            let is_ours = self.write(&shard, epoch, owner, mark).await?;
            let mut board = self.desk.board();
            match (is_ours, is_ended) {
                (true, false) => {
                    board.held.insert(shard, Held { epoch, renewed: asked });
                }
                (true, true) => {
                    board.held.remove(&shard);
                    board.marks.remove(&shard);
                    board.ended.insert(shard);
                }
                (false, _) => {
                    board.held.remove(&shard);
                    board.lost.insert(shard);
                }
            }
        }
        for (shard, epoch) in self.leaving.clone() {
            if self.desk.board().lost.contains(&shard) {
                continue;
            }
            let mark = self.desk.board().marks.remove(&shard);
            self.write(&shard, epoch, None, mark).await?;
            self.leaving.remove(&shard);
        }
        Ok(())
    }

    /// Writes our lease anew; false if it is ours no longer.
    async fn write(&mut self, shard: &Arc<str>, epoch: u64, owner: Option<String>, mark: Option<LeaseMark>) -> Result<bool, Error> {
        let Some(known) = self.known.get(shard) else { return Ok(false) };
        if known.lease.owner.as_deref() != Some(&self.me) || known.lease.epoch != epoch {
            return Ok(false);
        }
        let lease = Lease {
            owner,
            epoch,
            renewed_at_ms: self.clock.now_ms(),
            mark: mark.or_else(|| known.lease.mark.clone()),
        };
        let mode = PutMode::Update(known.version.clone());
        self.store(shard, lease, mode).await
    }

    async fn take(&mut self, shard: &Arc<str>) -> Result<(), Error> {
        let (mode, before) = match self.known.get(shard) {
            Some(known) => (PutMode::Update(known.version.clone()), Some(known.lease.clone())),
            None => (PutMode::Create, None),
        };
        let epoch = before.as_ref().map_or(0, |lease| lease.epoch) + 1;
        let lease = Lease {
            owner: Some(self.me.clone()),
            epoch,
            renewed_at_ms: self.clock.now_ms(),
            mark: before.and_then(|lease| lease.mark),
        };
        let asked = Instant::now();
        if self.store(shard, lease, mode).await? {
            let mut board = self.desk.board();
            board.held.insert(Arc::clone(shard), Held { epoch, renewed: asked });
            self.leaving.remove(shard);
        }
        Ok(())
    }

    /// False: somebody else was faster.
    async fn store(&mut self, shard: &Arc<str>, lease: Lease, mode: PutMode) -> Result<bool, Error> {
        let text = serde_json::to_string(&lease).expect("a struct of texts and numbers always becomes JSON");
        match self.put(&self.path("leases", shard), text, mode).await {
            Ok(version) => {
                let known = Known {
                    lease,
                    version,
                    changed: Instant::now(),
                    is_from_earlier_life: false,
                };
                self.known.insert(Arc::clone(shard), known);
                Ok(true)
            }
            Err(Error::Precondition { .. } | Error::AlreadyExists { .. } | Error::NotFound { .. }) => {
                self.known.remove(shard);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives everything back, so that others need not wait for the lease time.
    async fn leave(&mut self) -> Result<(), Error> {
        let held = std::mem::take(&mut self.desk.board().held).into_iter();
        let mut ours: BTreeMap<Arc<str>, u64> = held.map(|(shard, held)| (shard, held.epoch)).collect();
        ours.append(&mut self.leaving);
        for (shard, epoch) in ours {
            let mark = self.desk.board().marks.get(&shard).cloned();
            self.write(&shard, epoch, None, mark).await?;
        }
        self.settings.store.delete(&self.path("daemons", &self.me)).await
    }
}

/// The shard or daemon that an object speaks of.
fn name_of(meta: &ObjectMeta) -> Option<&str> {
    meta.location.filename()?.strip_suffix(".json")
}

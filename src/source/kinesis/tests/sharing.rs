//! Several daemons share a stream through leases.

use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};

use super::*;

/// Leases that are short enough to watch.
fn leases(store: &Arc<dyn ObjectStore>) -> LeaseSettings {
    LeaseSettings {
        lease_time: Duration::from_millis(900),
        renew_every: Duration::from_millis(150),
        ..LeaseSettings::new(Arc::clone(store), "leases/s")
    }
}

fn sharing(world: &World, id: &str, store: &Arc<dyn ObjectStore>) -> Daemon {
    let settings = KinesisSettings {
        daemon_id: id.to_owned(),
        ..world.settings()
    };
    world.daemon(settings, Some(leases(store)))
}

#[test]
fn daemons_share_the_shards_and_the_one_that_stays_takes_over() {
    let world = World::new();
    for shard in ["a", "b", "c", "d"] {
        world.stub.shard(shard, &[]);
        world.stub.put(shard, format!("{shard}0"));
    }
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut bronze = Bronze::default();
    let mut one = sharing(&world, "one", &store);
    one.run_until(&mut bronze, "all lines", |bronze, _| bronze.count() == 4);

    let mut two = sharing(&world, "two", &store);
    let began = Instant::now();
    while one.source.lag().partitions != 2 || two.source.lag().partitions != 2 {
        assert!(
            began.elapsed() < PATIENCE,
            "never even: {:?} {:?}",
            one.source.lag(),
            two.source.lag()
        );
        one.turn(&mut bronze, LIMITS);
        two.turn(&mut bronze, LIMITS);
    }
    assert_eq!(one.lost, ["kinesis:s/c", "kinesis:s/d"]);
    for shard in ["a", "b", "c", "d"] {
        world.stub.put(shard, format!("{shard}1"));
    }
    while bronze.count() < 8 && began.elapsed() < PATIENCE {
        one.turn(&mut bronze, LIMITS);
        two.turn(&mut bronze, LIMITS);
    }

    // One stops in order: its shards are free at once.
    one.source.stop();
    two.run_until(&mut bronze, "all four", |_, two| two.source.lag().partitions == 4);
    for shard in ["a", "b", "c", "d"] {
        world.stub.put(shard, format!("{shard}2"));
    }
    two.run_until(&mut bronze, "the last lines", |bronze, _| bronze.count() == 12);
    for shard in ["a", "b", "c", "d"] {
        assert_eq!(bronze.of(shard), names(shard, 3));
    }
    assert_eq!((one.errors.len(), two.errors.len()), (0, 0));
}

#[test]
fn a_daemon_that_dies_loses_its_shards_after_the_lease_time_and_children_go_on_elsewhere() {
    let world = World::new();
    world.stub.shard("a", &[]);
    world.stub.put("a", "a0");
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut bronze = Bronze::default();

    // Its runtime dies with it, so that nothing is renewed or given back.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let doomed = World {
        runtime: runtime.unwrap(),
        stub: world.stub.clone(),
    };
    let mut one = sharing(&doomed, "one", &store);
    one.run_until(&mut bronze, "the line", |bronze, _| bronze.count() == 1);
    doomed.runtime.shutdown_background();
    drop(one);

    world.stub.shard("b", &["a"]);
    world.stub.put("b", "b0");
    let mut two = sharing(&world, "two", &store);
    let began = Instant::now();
    two.run_until(&mut bronze, "the child", |bronze, _| bronze.count() == 2);
    assert!(began.elapsed() >= Duration::from_millis(800), "{:?}", began.elapsed());
    assert!(bronze.is_ended("a"));

    // A third one without the lake's knowledge learns by the lease that the parent is done.
    let mut three = sharing(&world, "three", &store);
    three.run_for(&mut Bronze::default(), Duration::from_millis(500));
    assert_eq!(three.started, [] as [&str; 0]);
    two.source.stop();
    three.run_until(&mut bronze, "the child there", |_, three| three.started == ["kinesis:s/b"]);
}

#[test]
fn a_shard_changes_hands_only_when_its_daemon_knows_of_the_loss() {
    let world = World::new();
    for shard in ["a", "b"] {
        world.stub.shard(shard, &[]);
    }
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let patient = |id: &str| {
        let settings = KinesisSettings {
            daemon_id: id.to_owned(),
            ..world.settings()
        };
        let leases = LeaseSettings {
            lease_time: PATIENCE,
            ..leases(&store)
        };
        world.daemon(settings, Some(leases))
    };
    let mut bronze = Bronze::default();
    let mut one = patient("one");
    one.run_until(&mut bronze, "both shards", |_, one| one.started.len() == 2);
    let mut two = patient("two");
    let began = Instant::now();
    while one.source.lag().partitions == 2 || began.elapsed() < Duration::from_secs(1) {
        assert!(began.elapsed() < PATIENCE);
        assert_eq!(one.source.discover().unwrap().len(), 0);
        assert!(one.source.next_part(LIMITS).unwrap().is_none());
        two.turn(&mut bronze, LIMITS);
    }
    assert_eq!((one.source.lag().partitions, two.started.len()), (1, 0));
    assert_eq!(one.source.take_lost(), ["kinesis:s/b".into()]);
    two.run_until(&mut bronze, "the shard", |_, two| two.started == ["kinesis:s/b"]);
}

#[test]
fn a_lost_shard_that_comes_back_is_offered_after_its_loss_was_taken() {
    let world = World::new();
    world.stub.shard("a", &[]);
    let throttled = Arc::new(ThrottledStore::new(InMemory::new(), ThrottleConfig::default()));
    let store: Arc<dyn ObjectStore> = Arc::clone(&throttled) as Arc<dyn ObjectStore>;
    let mut bronze = Bronze::default();
    let mut one = sharing(&world, "one", &store);
    one.run_until(&mut bronze, "the shard", |_, one| one.started.len() == 1);
    throttled.config_mut(|config| config.wait_put_per_call = PATIENCE * 10);
    let began = Instant::now();
    while one.source.lag().partitions > 0 && began.elapsed() < PATIENCE {
        let _ = one.source.next_part(LIMITS);
    }
    throttled.config_mut(|config| config.wait_put_per_call = Duration::ZERO);
    let is_held = |one: &Daemon| one.source.leases.as_ref().unwrap().desk.board().held.contains_key("a");
    while !is_held(&one) && began.elapsed() < PATIENCE {
        assert_eq!(one.source.discover().unwrap().len(), 0);
    }
    assert!(is_held(&one) && one.source.discover().unwrap().is_empty());
    assert_eq!(one.source.take_lost(), ["kinesis:s/a".into()]);
    assert_eq!(one.source.discover().unwrap().len(), 1);
}

#[test]
fn a_lease_that_somebody_took_makes_the_shard_lost() {
    let world = World::new();
    world.stub.shard("a", &[]);
    world.stub.put("a", "a0");
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut bronze = Bronze::default();
    let mut one = sharing(&world, "one", &store);
    one.run_until(&mut bronze, "the line", |bronze, _| bronze.count() == 1);
    let lease = r#"{"owner":"thief","epoch":9,"renewed_at_ms":0,"mark":null}"#;
    let path = object_store::path::Path::from("leases/s/leases/a.json");
    world
        .runtime
        .block_on(object_store::ObjectStoreExt::put(&*store, &path, lease.into()))
        .unwrap();
    one.run_until(&mut bronze, "the loss", |_, one| one.lost == ["kinesis:s/a"]);
    assert_eq!(one.source.lag().partitions, 0);
    // The thief never renews: after the lease time the shard comes back, in a later epoch.
    one.run_until(&mut bronze, "the shard again", |_, one| one.started.len() == 2);
    let lease = world.runtime.block_on(async {
        let found = object_store::ObjectStoreExt::get(&*store, &path).await.unwrap();
        found.bytes().await.unwrap()
    });
    let lease: lease::Lease = serde_json::from_slice(&lease).unwrap();
    assert_eq!((lease.owner.as_deref(), lease.epoch), (Some("one"), 10));
    assert_eq!(bronze.of("a"), ["a0"]);
}

#[test]
fn when_the_store_falls_silent_the_shards_are_lost_in_time_and_come_back_with_it() {
    let world = World::new();
    world.stub.shard("a", &[]);
    world.stub.put("a", "a0");
    let throttled = Arc::new(ThrottledStore::new(InMemory::new(), ThrottleConfig::default()));
    let store: Arc<dyn ObjectStore> = Arc::clone(&throttled) as Arc<dyn ObjectStore>;
    let mut bronze = Bronze::default();
    let mut one = sharing(&world, "one", &store);
    one.run_until(&mut bronze, "the line", |bronze, _| bronze.count() == 1);
    throttled.config_mut(|config| config.wait_put_per_call = PATIENCE * 10);
    one.run_until(&mut bronze, "the loss", |_, one| one.lost == ["kinesis:s/a"]);
    one.run_until(&mut bronze, "the error", |_, one| !one.errors.is_empty());
    let what = "leases below leases/s cannot be kept: no answer in time";
    assert!(one.errors.iter().all(|error| error.what == what), "{:?}", one.errors);
    throttled.config_mut(|config| config.wait_put_per_call = Duration::ZERO);
    world.stub.put("a", "a1");
    one.run_until(&mut bronze, "the shard again", |bronze, _| bronze.count() == 2);
    assert_eq!((bronze.of("a"), one.errors.len()), (names("a", 2), 1));
}

#[test]
fn on_a_store_without_conditional_replacement_one_daemon_reads_all() {
    let world = World::new();
    world.stub.shard("a", &[]);
    world.stub.put("a", "a0");
    let folder = tempfile::tempdir().unwrap();
    let store = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(store);
    let mut bronze = Bronze::default();
    let mut one = sharing(&world, "one", &store);
    one.run_until(&mut bronze, "the line", |bronze, _| bronze.count() == 1);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is written");
}

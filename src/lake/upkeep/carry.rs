//! What a commit of upkeep carries on of the commits before it.
//!
//! Those who start look for the newest note of a table, some commits back. A commit of upkeep with no
//! note would push it out of sight, so it repeats what still holds: totals, watermark, pending
//! windows. What belongs to the rows of one commit alone is left out.

use deltalake::kernel::transaction::CommitBuilder;
use deltalake::kernel::{Action, Transaction};
use deltalake::protocol::DeltaOperation;
use serde_json::Value;

use crate::lake::commit::quiet_commit;
use crate::lake::{Lake, LakeError, table_error};

/// Parts of a note that speak of the rows of its own commit.
const OF_ONE_COMMIT: [&str; 7] = ["positions", "minutes", "counts", "rejected", "duplicates", "collected", "upkeep"];

/// A change of upkeep's, ready to be committed.
pub(super) struct Change {
    pub actions: Vec<Action>,
    pub operation: DeltaOperation,
    /// What was done, for people who read the history.
    pub note: Value,
    pub markers: Vec<Transaction>,
}

/// Commits on top of the newest version or not at all. The caller holds the table's commit turn.
pub(super) async fn commit(lake: &Lake, name: &str, change: Change) -> Result<(), LakeError> {
    lake.refuse_if_lost()?;
    let newest = lake.newest_note_that(name, Value::is_object).await?;
    let mut note = newest.map_or_else(|| serde_json::json!({}), still_true);
    note["upkeep"] = change.note;
    let removed: Vec<String> = change.actions.iter().filter_map(removed_path).collect();
    let open = lake.get(name).await?;
    let properties = quiet_commit()
        .with_application_transactions(change.markers)
        .with_metadata([("playhead".to_string(), note)])
        // Without a retry delta-rs refuses what is not built on the newest version.
        .with_max_retries(0);
    let mut table = open.table;
    let finalized = CommitBuilder::from(properties)
        .with_actions(change.actions)
        .build(
            Some(table.snapshot().map_err(table_error("commit to", name))?),
            table.log_store(),
            change.operation,
        )
        .await
        .map_err(table_error("commit to", name))?;
    table.state = Some(finalized.snapshot());
    lake.landed(name, table, &removed).await;
    Ok(())
}

fn removed_path(action: &Action) -> Option<String> {
    match action {
        Action::Remove(file) => Some(file.path.clone()),
        _ => None,
    }
}

fn still_true(mut note: Value) -> Value {
    if let Some(entries) = note.as_object_mut() {
        entries.retain(|key, _| !OF_ONE_COMMIT.contains(&key.as_str()));
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_holds_for_the_table_is_carried_on_and_what_holds_for_a_commit_is_not() {
        let check = |note: Value, carried: Value| assert_eq!(still_true(note), carried);
        check(
            json!({"counts": {"received": 1}, "totals": {"received": 9}, "positions": {"p": [0, 1]}, "watermark_ms": 5, "minutes": [[1, 2]]}),
            json!({"totals": {"received": 9}, "watermark_ms": 5}),
        );
        check(
            json!({"pipeline": "h", "pending": [[3, 4]], "silver": {"s": 7}, "minutes": [[3, 3]]}),
            json!({"pipeline": "h", "pending": [[3, 4]], "silver": {"s": 7}}),
        );
        check(json!({"upkeep": {"files": 2}, "watermark_ms": 5}), json!({"watermark_ms": 5}));
    }
}

//! Who writes a gold table: this lake's own runner, or Arroyo. One at a time.
//!
//! The owner stands in the notes of the table's commits. Without one it is the runner. `playhead arroyo
//! deploy --hand-over` and `take-back` change it while no daemon holds the lake.
//!
//! Invariant: a table that is Arroyo's is not computed here. The coarser ones made of it are, from its rows, by
//! the daemon that collects them; in other lakes it has none.

use serde_json::{Value, json};

use super::table_spec;
use crate::lake::{Commit, Lake, LakeError};
use crate::sql::SqlError;
use crate::sql::pipeline::Pipeline;

const OWNER: &str = "owner";

/// Who may write a gold table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Runner,
    Arroyo,
}

impl Owner {
    fn as_str(self) -> &'static str {
        match self {
            Owner::Runner => "playhead",
            Owner::Arroyo => "arroyo",
        }
    }
}

/// Who writes the table of a pipeline, or the finer one that it is made of.
///
/// # Errors
/// The table's log cannot be read.
pub async fn owner(lake: &Lake, pipeline: &Pipeline) -> Result<Owner, LakeError> {
    let mut finest = pipeline;
    while let Some(finer) = &finest.finer {
        finest = finer;
    }
    let table = finest.table();
    if !lake.table_names().await.contains(&table) {
        return Ok(Owner::Runner);
    }
    // A run of the runner is newer than what it was given back by, and says no owner.
    let note = lake.newest_note_with_any(&table, &[OWNER, "pipeline"]).await?;
    let is_arroyos = note.is_some_and(|note| note[OWNER] == Owner::Arroyo.as_str());
    Ok(if is_arroyos { Owner::Arroyo } else { Owner::Runner })
}

/// Opens a pipeline's table, if there is one; true if the runner has written to it.
///
/// # Errors
/// The table cannot be read, or the pipeline cannot be planned.
pub async fn open(lake: &Lake, pipeline: &Pipeline) -> Result<bool, SqlError> {
    let is_there = lake.open_existing(table_spec(pipeline).await?).await?;
    Ok(is_there && lake.newest_note(&pipeline.table(), "pipeline").await?.is_some())
}

/// Leaves a pipeline's table to Arroyo where nobody has written it yet; false: it is the runner's.
///
/// # Errors
/// The table cannot be read or written.
pub async fn leave_to_arroyo(lake: &Lake, pipeline: &Pipeline) -> Result<bool, SqlError> {
    if lake.open_existing(table_spec(pipeline).await?).await? {
        let note = lake.newest_note_with_any(&pipeline.table(), &[OWNER, "pipeline"]).await?;
        if let Some(note) = note {
            return Ok(note[OWNER] == Owner::Arroyo.as_str());
        }
    }
    give(lake, pipeline, Owner::Arroyo).await?;
    Ok(true)
}

/// What a commit of collected rows says of their owner.
pub(super) fn note_of(owner: Owner) -> Value {
    json!({OWNER: owner.as_str()})
}

/// Gives a pipeline's table to another writer. The table is made if there is none.
///
/// # Errors
/// The table cannot be written.
pub async fn give(lake: &Lake, pipeline: &Pipeline, owner: Owner) -> Result<(), SqlError> {
    lake.ensure(table_spec(pipeline).await?).await?;
    let table = pipeline.table();
    // What the runner has noted stays in sight.
    let before = lake.newest_note(&table, "pipeline").await?;
    let mut note = before.filter(Value::is_object).unwrap_or_else(|| json!({}));
    if let Some(entries) = note.as_object_mut() {
        entries.remove("minutes");
    }
    note[OWNER] = json!(owner.as_str());
    let commit = Commit { covers: Vec::new(), note };
    lake.append(&table, Vec::new(), commit).await?;
    Ok(())
}

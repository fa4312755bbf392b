//! All tables as they stood at one moment, by name; each is opened by the first query that names it.
//!
//! Stands between a session and the lake.
//!
//! Invariant: a table that two queries of one session name is opened once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::catalog::TableProvider;
use datafusion::datasource::ViewTable;
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;

use super::gold_table::{GoldTable, Made};
use crate::lake::Lake;
use crate::sql::pipeline::Pipeline;
use crate::sql::{SqlError, context_over, views};

pub const GOLD: &str = "gold";

/// What a snapshot is taken of.
pub struct Snapshot {
    pub lake: Arc<Lake>,
    pub pipelines: Arc<Vec<Pipeline>>,
    pub runtime: Arc<RuntimeEnv>,
    pub memory_bytes: usize,
    pub live_cost_ms: Arc<AtomicU64>,
}

/// The tables of one snapshot.
pub struct Tables {
    of: Snapshot,
    /// Of each layer, without it.
    names: BTreeMap<String, BTreeSet<String>>,
    views: BTreeMap<String, views::View>,
    opened: Mutex<HashMap<String, Arc<dyn TableProvider>>>,
    gold: Mutex<HashMap<String, Arc<GoldTable>>>,
}

impl Snapshot {
    /// `tables`: their names with the layer. Views are there where all the tables are that they read.
    pub fn of_tables(self, tables: impl IntoIterator<Item = String>) -> Tables {
        let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for name in tables {
            if let Some((layer, table)) = name.split_once('.') {
                names.entry(layer.to_owned()).or_default().insert(table.to_owned());
            }
        }
        let gold = names.entry(GOLD.to_owned()).or_default();
        let known: BTreeSet<&str> = self.pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
        gold.retain(|table| known.contains(table.as_str()));
        let views = views::all().into_iter();
        let views = views.filter(|view| !gold.contains(&view.name) && view.reads().iter().all(|table| gold.contains(table)));
        let views: BTreeMap<String, views::View> = views.map(|view| (view.name.clone(), view)).collect();
        gold.extend(views.keys().cloned());
        Tables {
            of: self,
            names,
            views,
            opened: Mutex::default(),
            gold: Mutex::default(),
        }
    }
}

impl Tables {
    pub fn names(&self, layer: &str) -> Vec<String> {
        self.names.get(layer).into_iter().flatten().cloned().collect()
    }

    pub fn holds(&self, layer: &str, table: &str) -> bool {
        self.names.get(layer).is_some_and(|names| names.contains(table))
    }

    /// The table, opened if nobody has asked for it yet. `planner`: a session over these tables, for views.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn table(
        &self,
        layer: &str,
        table: &str,
        planner: impl FnOnce() -> Result<SessionState, DataFusionError>,
    ) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if !self.holds(layer, table) {
            return Ok(None);
        }
        let name = format!("{layer}.{table}");
        if let Some(known) = self.opened().get(&name) {
            return Ok(Some(Arc::clone(known)));
        }
        let opened: Arc<dyn TableProvider> = match (layer, self.views.get(table)) {
            (GOLD, Some(view)) => match planner()?.create_logical_plan(&view.text).await {
                Ok(plan) => Arc::new(ViewTable::new(plan, Some(view.text.clone()))),
                // Who has pipelines of his own may lack a column that it names.
                Err(_) => return Ok(None),
            },
            (GOLD, None) => match self.of.pipelines.iter().find(|pipeline| pipeline.name == table) {
                Some(pipeline) => self.gold_table(pipeline).await.map_err(as_engines)?,
                None => return Ok(None),
            },
            _ => self.stored(&name).await.map_err(as_engines)?,
        };
        Ok(Some(Arc::clone(self.opened().entry(name).or_insert(opened))))
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<dyn TableProvider>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gold(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<GoldTable>>> {
        self.gold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn stored(&self, name: &str) -> Result<Arc<dyn TableProvider>, SqlError> {
        let context = context_over(Arc::clone(&self.of.runtime), super::DATABASE, GOLD);
        Ok(self.of.lake.provider(&context, name).await?)
    }

    /// Two tables that are rolled up from one share it, with its open windows.
    async fn gold_table(&self, pipeline: &Pipeline) -> Result<Arc<GoldTable>, SqlError> {
        if let Some(known) = self.gold().get(&pipeline.name) {
            return Ok(Arc::clone(known));
        }
        let finer = match &pipeline.finer {
            Some(finer) if self.holds(GOLD, &finer.name) => Some(Box::pin(self.gold_table(finer)).await?),
            _ => None,
        };
        let made = GoldTable::new(Made {
            pipeline: pipeline.clone(),
            stored: self.stored(&pipeline.table()).await?,
            finer,
            lake: Arc::clone(&self.of.lake),
            runtime: Arc::clone(&self.of.runtime),
            memory_bytes: self.of.memory_bytes,
            live_cost_ms: Arc::clone(&self.of.live_cost_ms),
        });
        Ok(Arc::clone(self.gold().entry(pipeline.name.clone()).or_insert(Arc::new(made))))
    }
}

fn as_engines(error: SqlError) -> DataFusionError {
    match error {
        SqlError::Query(error) => error,
        error => DataFusionError::External(Box::new(error)),
    }
}

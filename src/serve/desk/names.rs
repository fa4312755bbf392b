//! The catalogue of a session: its layers, and what PostgreSQL's clients look names and types up in.
//!
//! Outlives the sessions: the object numbers that a client got in one question it uses in the next.
//!
//! Invariant: the tables of a session are those of its snapshot; only the lists of names and types are those of
//! the newest one.

use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, SchemaProvider, TableProvider,
};
use datafusion::datasource::ViewTable;
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::setup_pg_catalog;

use super::DATABASE;
use super::functions;
use super::snapshot::{GOLD, Tables};
use crate::sql::{LAYERS, Session, SqlError, context_with, explain_change, session_config};

const PG_CATALOG: &str = "pg_catalog";
/// Where the parser leads questions for `information_schema.columns`.
pub const DESCRIBED: &str = "described";
pub const COLUMNS: &str = "columns";
const DESCRIBED_COLUMNS: &str = include_str!("columns.sql");

/// What all sessions of a desk have in common.
pub struct Names {
    base: Base,
    pg_catalog: Arc<dyn SchemaProvider>,
    newest: Arc<RwLock<Option<Arc<Tables>>>>,
}

/// Functions and settings, and no table. Set once, when everything is registered.
type Base = Arc<OnceLock<SessionState>>;

impl Names {
    /// # Errors
    /// The engine cannot be set up.
    pub fn new(runtime: &Arc<RuntimeEnv>) -> Result<Names, SqlError> {
        let mut config = session_config(DATABASE, GOLD);
        // `timestamptz`, now() and to_timestamp() then are times in UTC, as the tables' own.
        config.options_mut().execution.time_zone = Some("UTC".to_owned());
        // Without it a few letters make a question that never ends, of values that only grow.
        config.options_mut().execution.enable_recursive_ctes = false;
        let mut context = context_with(Arc::clone(runtime), config);
        let missing = |what: &str| DataFusionError::Internal(format!("the session has no {what}"));
        let newest = Arc::new(RwLock::new(None));
        let base = Base::default();
        let catalog = context.catalog(DATABASE).ok_or_else(|| missing(DATABASE))?;
        for name in LAYERS {
            let of = Snapshots::Newest(Arc::clone(&newest));
            let base = Arc::clone(&base);
            catalog.register_schema(name, Arc::new(Layer { name, of, base }))?;
        }
        setup_pg_catalog(&context, DATABASE, EmptyContextProvider).map_err(|error| *error)?;
        functions::register(&mut context);
        explain_change::register(&context);
        let pg_catalog = catalog.schema(PG_CATALOG).ok_or_else(|| missing(PG_CATALOG))?;
        let mut state = context.state();
        state.config_mut().options_mut().catalog.create_default_catalog_and_schema = false;
        let state = SessionStateBuilder::new_from_existing(state).with_catalog_list(Arc::new(MemoryCatalogProviderList::new()));
        base.get_or_init(|| state.build());
        Ok(Names { base, pg_catalog, newest })
    }

    /// A session over these tables, which are the newest from now on.
    ///
    /// # Errors
    /// The engine cannot be set up.
    pub fn session_over(&self, tables: Tables) -> Result<Session, SqlError> {
        let tables = Arc::new(tables);
        let session = Session::new_with_state(state_over(&self.base, &tables, Some(&self.pg_catalog))?);
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = Some(tables);
        Ok(session)
    }
}

fn state_over(base: &Base, tables: &Arc<Tables>, pg_catalog: Option<&Arc<dyn SchemaProvider>>) -> Result<SessionState, DataFusionError> {
    let catalog = MemoryCatalogProvider::new();
    for name in LAYERS {
        let of = Snapshots::One(Arc::clone(tables));
        let base = Arc::clone(base);
        catalog.register_schema(name, Arc::new(Layer { name, of, base }))?;
    }
    if let Some(pg_catalog) = pg_catalog {
        catalog.register_schema(PG_CATALOG, Arc::clone(pg_catalog))?;
        let (base, tables) = (Arc::clone(base), Arc::clone(tables));
        catalog.register_schema(DESCRIBED, Arc::new(Described { base, tables }))?;
    }
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog(DATABASE.to_owned(), Arc::new(catalog));
    let Some(base) = base.get() else {
        return Err(DataFusionError::Internal(
            "a table was asked for before the session was set up".to_owned(),
        ));
    };
    Ok(SessionStateBuilder::new_from_existing(base.clone())
        .with_catalog_list(Arc::new(catalogs))
        .build())
}

/// `information_schema.columns` with PostgreSQL's names of types. Questions are led here by the parser; it is in no
/// list of schemas or tables.
struct Described {
    base: Base,
    tables: Arc<Tables>,
}

impl fmt::Debug for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Described").finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for Described {
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn table_exist(&self, name: &str) -> bool {
        name == COLUMNS
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if !self.table_exist(name) {
            return Ok(None);
        }
        let plan = state_over(&self.base, &self.tables, None)?
            .create_logical_plan(DESCRIBED_COLUMNS)
            .await?;
        Ok(Some(Arc::new(ViewTable::new(plan, None))))
    }
}

enum Snapshots {
    One(Arc<Tables>),
    Newest(Arc<RwLock<Option<Arc<Tables>>>>),
}

impl Snapshots {
    fn tables(&self) -> Option<Arc<Tables>> {
        match self {
            Snapshots::One(tables) => Some(Arc::clone(tables)),
            Snapshots::Newest(newest) => newest.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// One schema.
struct Layer {
    name: &'static str,
    of: Snapshots,
    base: Base,
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("name", &self.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for Layer {
    fn table_names(&self) -> Vec<String> {
        self.of.tables().map(|tables| tables.names(self.name)).unwrap_or_default()
    }

    fn table_exist(&self, name: &str) -> bool {
        self.of.tables().is_some_and(|tables| tables.holds(self.name, name))
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some(tables) = self.of.tables() else { return Ok(None) };
        tables.table(self.name, name, || state_over(&self.base, &tables, None)).await
    }
}

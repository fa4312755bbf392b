//! Parameters of prepared statements: which types they have, and their values.
//!
//! Invariant: what a client says of a type goes before what is inferred.

use std::collections::HashMap;

use arrow::datatypes::DataType;
use datafusion::common::ParamValues;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion_postgres::arrow_pg::datatypes::df::deserialize_parameters_with_server_types;
use datafusion_postgres::arrow_pg::datatypes::into_pg_type;
use datafusion_postgres::pgwire::api::Type;
use datafusion_postgres::pgwire::api::portal::Portal;
use datafusion_postgres::pgwire::error::PgWireResult;

/// As many as the protocol can count.
const PARAMETERS_MAX: usize = 65_535;

/// Types of `$1`, `$2`, ...; `None`: nothing says what it is.
#[derive(Debug, Clone, Default)]
pub struct Parameters(Vec<Option<DataType>>);

impl Parameters {
    /// What the plan says of them: what they are compared with, or cast to.
    pub fn of(plan: &LogicalPlan) -> Result<Parameters, DataFusionError> {
        let mut known: HashMap<String, Option<DataType>> = plan.get_parameter_types()?;
        if known.values().any(Option::is_none) {
            plan.apply_with_subqueries(|node| {
                for expression in node.expressions() {
                    expression.apply(|part| {
                        take_cast(part, &mut known);
                        Ok(TreeNodeRecursion::Continue)
                    })?;
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        let number = |name: &str| name.trim_start_matches('$').parse::<usize>().ok();
        let count = known.keys().filter_map(|name| number(name)).max().unwrap_or(0).min(PARAMETERS_MAX);
        let types = (1..=count).map(|number| known.get(&format!("${number}")).cloned().flatten());
        Ok(Parameters(types.collect()))
    }

    /// As clients are told.
    pub fn wire_types(&self) -> PgWireResult<Vec<Type>> {
        let wire = |known: &Option<DataType>| known.as_ref().map_or(Ok(Type::TEXT), into_pg_type);
        self.0.iter().map(wire).collect()
    }

    /// The values that a client sent.
    pub fn values<S: Clone>(&self, portal: &Portal<S>) -> PgWireResult<ParamValues> {
        let wire = self.wire_types()?;
        let wire: Vec<Option<&Type>> = wire.iter().map(Some).collect();
        let known: Vec<Option<&DataType>> = self.0.iter().map(Option::as_ref).collect();
        deserialize_parameters_with_server_types(portal, &known, &wire)
    }
}

/// `$1::timestamptz` says what `$1` is.
fn take_cast(part: &Expr, known: &mut HashMap<String, Option<DataType>>) {
    if let Expr::Cast(cast) = part
        && let Expr::Placeholder(placeholder) = &*cast.expr
    {
        let entry = known.entry(placeholder.id.clone()).or_default();
        entry.get_or_insert_with(|| cast.field.data_type().clone());
    }
}

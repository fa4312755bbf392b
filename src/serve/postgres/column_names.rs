//! Names of columns that a question gives no name to, as PostgreSQL makes them: `sum`, `?column?`.
//!
//! Clients ask for such columns by these names, and the engine's own spell out the whole expression.
//!
//! Invariant: a column that has a name keeps it.

use arrow::datatypes::{Field, Schema};
use datafusion::sql::sqlparser::ast::{Expr, Query, SelectItem, SetExpr, Statement};

/// The schema as clients are told of it.
pub fn named(schema: &Schema, statement: &Statement) -> Schema {
    let names = match statement {
        Statement::Query(query) => names(query),
        _ => None,
    };
    // With a `*` somewhere the columns cannot be counted off.
    let Some(names) = names.filter(|names| names.len() == schema.fields().len()) else {
        return schema.clone();
    };
    let fields = schema.fields().iter().zip(names).map(|(field, name)| match name {
        Some(name) => Field::clone(field).with_name(name),
        None => Field::clone(field),
    });
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())
}

fn names(query: &Query) -> Option<Vec<Option<String>>> {
    let mut body = &*query.body;
    loop {
        body = match body {
            SetExpr::SetOperation { left, .. } => left,
            SetExpr::Query(query) => &query.body,
            SetExpr::Select(select) => return select.projection.iter().map(of_item).collect(),
            _ => return None,
        };
    }
}

/// `None`: a `*`. `Some(None)`: it has a name.
fn of_item(item: &SelectItem) -> Option<Option<String>> {
    match item {
        SelectItem::UnnamedExpr(expression) => Some(of_expression(expression)),
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => None,
        _ => Some(None),
    }
}

fn of_expression(expression: &Expr) -> Option<String> {
    let name = match expression {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => return None,
        Expr::Function(function) => return Some(function.name.0.last()?.to_string().trim_matches('"').to_lowercase()),
        Expr::Nested(inner) | Expr::AtTimeZone { timestamp: inner, .. } => return of_expression(inner),
        Expr::Cast { expr, data_type, .. } => {
            return match &**expr {
                Expr::Identifier(name) => Some(name.value.clone()),
                Expr::CompoundIdentifier(parts) => Some(parts.last()?.value.clone()),
                Expr::Value(_) => Some(data_type.to_string().to_lowercase()),
                inner => of_expression(inner),
            };
        }
        Expr::Extract { .. } => "extract",
        Expr::Floor { .. } => "floor",
        Expr::Ceil { .. } => "ceil",
        Expr::Case { .. } => "case",
        Expr::Interval(_) => "interval",
        _ => "?column?",
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::desk::parse;
    use arrow::datatypes::DataType;

    #[track_caller]
    fn check(question: &str, expected: &[&str]) {
        let fields: Vec<Field> = expected.iter().map(|_| Field::new("own", DataType::Int64, true)).collect();
        let statement = parse(question).expect("it is SQL").remove(0);
        let schema = named(&Schema::new(fields), &statement);
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, expected, "{question}");
    }

    #[test]
    fn columns_are_named_as_postgresql_names_them() {
        check(
            "SELECT sum(a), count(*), 1, a + 1, b.c",
            &["sum", "count", "?column?", "?column?", "own"],
        );
        check(
            "SELECT a::float8, extract(epoch from t), (max(a)), sum(a)::bigint",
            &["a", "extract", "max", "sum"],
        );
        check("SELECT 1 AS one, a", &["own", "own"]);
        check("SELECT max(a) FROM t UNION ALL SELECT 2", &["max"]);
        check("SELECT *, sum(a) OVER () FROM t", &["own", "own"]);
    }
}

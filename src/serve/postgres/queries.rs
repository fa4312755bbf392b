//! Questions of one client: as text, or prepared with parameters.
//!
//! Invariant: whatever is asked is planned anew over the tables of that moment: a statement that was prepared
//! an hour ago sees what is there now.
//! Invariant: what changes anything is refused before it is planned.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion_postgres::arrow_pg::datatypes::arrow_schema_to_pg_fields;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::results::{FieldInfo, Response};
use datafusion_postgres::pgwire::api::stmt::{QueryParser, StoredStatement};
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, Type};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::extendedquery::{Close, CloseComplete, Parse, ParseComplete, TARGET_TYPE_BYTE_STATEMENT};
use datafusion_postgres::pgwire::messages::response::TransactionStatus;
use futures_util::{Sink, SinkExt};

use super::cancel::Registered;
use super::column_names::named;
use super::parameters::Parameters;
use super::refusal::{self, NOT_SUPPORTED, READ_ONLY, SYNTAX, TOO_MUCH, refusal};
use super::rows::{self, Asked};
use super::talk;
use crate::serve::desk::{Desk, Moment, PlannedQuestion, Question, SharedDesk, parse};
use crate::sql::SqlError;

/// Statements of one text: what a client sends at once by itself are a handful.
const STATEMENTS_MAX: usize = 100;

/// Prepared statements that a client keeps by name: drivers keep one to three hundred.
const PREPARED_MAX: usize = 1_000;

/// Answers one client.
#[derive(Clone)]
pub struct Queries {
    desk: Arc<SharedDesk>,
    rows_max: u64,
    registered: Arc<Registered>,
    /// Named statements that were prepared and not closed.
    prepared: Arc<AtomicUsize>,
}

/// A question with the moment that it was planned over.
struct Planned {
    /// The columns as clients are told of them.
    schema: SchemaRef,
    desk: Arc<Desk>,
    moment: Arc<Moment>,
    question: PlannedQuestion,
}

impl Queries {
    pub fn new(desk: Arc<SharedDesk>, rows_max: u64, registered: Arc<Registered>) -> Queries {
        Queries {
            desk,
            rows_max,
            registered,
            prepared: Arc::default(),
        }
    }

    async fn plan(&self, question: Question) -> Result<Planned, SqlError> {
        let desk = self.desk.get();
        let moment = desk.moment().await?;
        let planned = desk.plan(&moment, question.clone()).await?;
        let schema = Arc::new(named(planned.plan.schema().as_arrow(), question.statement()));
        Ok(Planned {
            schema,
            desk,
            moment,
            question: planned,
        })
    }

    fn response<C: ClientInfo>(&self, client: &C, text: &Arc<str>, planned: Planned, format: &Format) -> PgWireResult<Response> {
        let schema = &planned.schema;
        if let Format::Individual(formats) = format
            && formats.len() != schema.fields().len()
        {
            let message = format!("{} formats for {} columns", formats.len(), schema.fields().len());
            return Err(refusal("08P01", message));
        }
        let fields = arrow_schema_to_pg_fields(schema, format, None)?;
        let asked = Asked {
            desk: planned.desk,
            moment: planned.moment,
            question: planned.question,
            text: Arc::clone(text),
            timeout: talk::timeout(client),
            rows_max: self.rows_max,
            cancelled: self.registered.listen(),
        };
        Ok(Response::Query(rows::response(asked, fields)))
    }

    async fn respond<C: ClientInfo>(&self, client: &mut C, text: &Arc<str>, statement: Statement) -> PgWireResult<Response> {
        if talk::columns(&statement).is_some() {
            return talk::reply(client, &statement);
        }
        let planned = self.plan(question(statement)?).await;
        self.response(
            client,
            text,
            planned.map_err(|error| refusal::of(&error, text))?,
            &Format::UnifiedText,
        )
    }
}

fn question(statement: Statement) -> PgWireResult<Question> {
    let text = statement.to_string();
    Question::of(statement).ok_or_else(|| {
        let words: Vec<&str> = text.split_whitespace().take(2).collect();
        match words.first().copied().unwrap_or_default().to_uppercase().as_str() {
            "DECLARE" | "FETCH" | "PREPARE" | "EXECUTE" => refusal(
                NOT_SUPPORTED,
                "cursors and PREPARE in SQL are not supported; use the driver's own prepared statements",
            ),
            first => {
                let second = words.get(1).filter(|_| matches!(first, "CREATE" | "DROP" | "ALTER"));
                let named = second.map_or_else(|| first.to_owned(), |second| format!("{first} {second}"));
                refusal(
                    READ_ONLY,
                    format!("cannot execute {named}: playhead's tables are read-only here, only SELECT, SHOW and EXPLAIN are answered"),
                )
            }
        }
    })
}

fn has_failed<C: ClientInfo>(client: &C) -> bool {
    client.transaction_status() == TransactionStatus::Error
}

fn is_end(statement: &Statement) -> bool {
    matches!(statement, Statement::Commit { .. } | Statement::Rollback { .. })
}

/// As PostgreSQL: after an error within a transaction only its end is taken.
fn refuse_after_an_error(has_failed: bool, statement: &Statement) -> PgWireResult<()> {
    match has_failed && !is_end(statement) {
        true => Err(refusal(
            "25P02",
            "current transaction is aborted, commands ignored until end of transaction block",
        )),
        false => Ok(()),
    }
}

#[async_trait]
impl SimpleQueryHandler for Queries {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statements = parse(query).map_err(|error| refusal::of(&error, query))?;
        if statements.is_empty() {
            return Ok(vec![Response::EmptyQuery]);
        }
        if statements.len() > STATEMENTS_MAX {
            return Err(refusal(TOO_MUCH, format!("more than {STATEMENTS_MAX} statements in one text")));
        }
        let text: Arc<str> = Arc::from(query);
        let mut responses = Vec::with_capacity(statements.len());
        // The client's own state follows only when the answers are sent.
        let mut has_failed = has_failed(client);
        for statement in statements {
            refuse_after_an_error(has_failed, &statement)?;
            has_failed = has_failed && !is_end(&statement);
            responses.push(self.respond(client, &text, statement).await?);
        }
        Ok(responses)
    }
}

/// A statement as it is kept for a client.
#[derive(Debug)]
pub struct Prepared {
    text: Arc<str>,
    statement: Statement,
    is: Kind,
}

#[derive(Debug)]
enum Kind {
    Talk(Vec<FieldInfo>),
    Question {
        question: Question,
        parameters: Parameters,
        schema: SchemaRef,
    },
}

#[async_trait]
impl QueryParser for Queries {
    type Statement = Arc<Prepared>;

    async fn parse_sql<C>(&self, _client: &C, sql: &str, _types: &[Option<Type>]) -> PgWireResult<Option<Arc<Prepared>>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let failed = |error: SqlError| refusal::of(&error, sql);
        let mut statements = parse(sql).map_err(failed)?;
        let Some(statement) = statements.pop() else { return Ok(None) };
        if !statements.is_empty() {
            return Err(refusal(SYNTAX, "cannot insert multiple commands into a prepared statement"));
        }
        let is = match talk::columns(&statement) {
            Some(columns) => Kind::Talk(columns),
            None => {
                let question = question(statement.clone())?;
                let planned = self.plan(question.clone()).await.map_err(failed)?;
                Kind::Question {
                    question,
                    parameters: Parameters::of(&planned.question.plan).map_err(|error| failed(error.into()))?,
                    schema: planned.schema,
                }
            }
        };
        Ok(Some(Arc::new(Prepared {
            text: Arc::from(sql),
            statement,
            is,
        })))
    }

    fn get_parameter_types(&self, prepared: &Arc<Prepared>) -> PgWireResult<Vec<Type>> {
        match &prepared.is {
            Kind::Talk(_) => Ok(Vec::new()),
            Kind::Question { parameters, .. } => parameters.wire_types(),
        }
    }

    fn get_result_schema(&self, prepared: &Arc<Prepared>, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        match &prepared.is {
            Kind::Talk(columns) => Ok(columns.clone()),
            Kind::Question { schema, .. } => {
                // One format for each column, or one for all.
                let format =
                    format.filter(|format| !matches!(format, Format::Individual(formats) if formats.len() != schema.fields().len()));
                arrow_schema_to_pg_fields(schema, format.unwrap_or(&Format::UnifiedText), None)
            }
        }
    }
}

#[async_trait]
impl ExtendedQueryHandler for Queries {
    type Statement = Arc<Prepared>;
    type QueryParser = Queries;

    fn query_parser(&self) -> Arc<Queries> {
        Arc::new(self.clone())
    }

    async fn on_parse<C>(&self, client: &mut C, message: Parse) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Arc<Prepared>>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.clone().unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let is_new = name != DEFAULT_NAME && client.portal_store().get_statement(&name).is_none();
        if is_new && self.prepared.load(Ordering::Relaxed) >= PREPARED_MAX {
            return Err(refusal(
                TOO_MUCH,
                format!("more than {PREPARED_MAX} prepared statements; close some"),
            ));
        }
        match StoredStatement::parse(client, &message, self.query_parser()).await? {
            Some(statement) => client.portal_store().put_statement(Arc::new(statement)),
            None => client.portal_store().put_empty_statement(&name),
        }
        self.prepared.fetch_add(usize::from(is_new), Ordering::Relaxed);
        client.send(PgWireBackendMessage::ParseComplete(ParseComplete::new())).await?;
        Ok(())
    }

    async fn on_close<C>(&self, client: &mut C, message: Close) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Arc<Prepared>>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        match message.target_type {
            TARGET_TYPE_BYTE_STATEMENT => {
                let was_kept = name != DEFAULT_NAME && client.portal_store().get_statement(name).is_some();
                self.prepared.fetch_sub(usize::from(was_kept), Ordering::Relaxed);
                client.portal_store().rm_statement(name);
            }
            _ => client.portal_store().rm_portal(name),
        }
        client.send(PgWireBackendMessage::CloseComplete(CloseComplete::new())).await?;
        Ok(())
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Arc<Prepared>>, _max_rows: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Arc<Prepared>>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement;
        refuse_after_an_error(has_failed(client), &prepared.statement)?;
        let Kind::Question { question, parameters, .. } = &prepared.is else {
            return talk::reply(client, &prepared.statement);
        };
        let failed = |error: SqlError| refusal::of(&error, &prepared.text);
        let values = parameters.values(portal)?;
        let mut planned = self.plan(question.clone()).await.map_err(failed)?;
        let question = planned.question.with_values(&values);
        planned.question = question.map_err(|error| failed(error.into()))?;
        self.response(client, &prepared.text, planned, &portal.result_column_format)
    }
}

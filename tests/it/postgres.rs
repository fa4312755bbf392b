//! The Postgres endpoint, asked by a driver that shares no code with it.
//!
//! What other programs send is here by their names: `grafana_...` is what its data source sends.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Runtime;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::daemon::Daemon;
use crate::services;
use crate::support::{Bench, reference};

/// What the log says once SQL is answered.
pub const ANSWERING: &str = "answering SQL on postgres://";
/// A test machine may be busy with all the other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// A lake with rows in every layer, and `playhead serve` over it.
pub struct Served {
    pub bench: Bench,
    child: std::process::Child,
    address: String,
    runtime: Runtime,
}

impl Served {
    fn start() -> Served {
        Served::start_with("")
    }

    /// With further settings, each on a line of its own; those of `postgres` come first and are indented.
    fn start_with(settings: &str) -> Served {
        let bench = Bench::new();
        bench.ingest(&[&reference("ref_player.ndjson"), &reference("ref_cdn.ndjson")]);
        Served::over(bench, settings)
    }

    pub fn over(bench: Bench, settings: &str) -> Served {
        let settings = bench.write("serve.yaml", format!("postgres:\n  listen: 127.0.0.1:0\n{settings}"));
        let log = bench.path("serve.log");
        let mut child = bench
            .command(&["serve"])
            .arg("--settings")
            .arg(settings)
            .stderr(std::fs::File::create(&log).expect("the log can be made"))
            .spawn()
            .expect("the binary starts");
        let address = wait_for_address(
            || std::fs::read_to_string(&log).unwrap_or_default(),
            || child.try_wait().ok().flatten().is_some(),
        );
        Served {
            bench,
            child,
            address,
            runtime: runtime(),
        }
    }

    /// Waits for an answer, but not for ever.
    #[track_caller]
    fn within<T>(&self, answer: impl Future<Output = T>) -> T {
        let answer = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, answer).await });
        answer.expect("it never ended")
    }

    fn client(&self) -> Client {
        self.within(connect(&self.address, "user=anybody")).expect("it lets anybody in")
    }

    /// The one value of a question, as text.
    #[track_caller]
    fn text(&self, question: &str) -> String {
        let rows = self.texts(question);
        assert_eq!(rows.len(), 1, "{question}: {rows:?}");
        rows[0].clone()
    }

    /// The first column of an answer, as text.
    #[track_caller]
    pub fn texts(&self, question: &str) -> Vec<String> {
        let client = self.client();
        let answer = self.within(client.simple_query(question));
        let answer = answer.unwrap_or_else(|error| panic!("{question}: {}", told(&error)));
        let rows = answer.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
            _ => None,
        });
        rows.collect()
    }

    /// The code and the message of a refusal.
    #[track_caller]
    pub fn refused(&self, question: &str) -> (String, String) {
        let client = self.client();
        let error = match self.within(client.simple_query(question)) {
            Err(error) => error,
            Ok(_) => panic!("{question}: it was answered"),
        };
        let refusal = error.as_db_error().unwrap_or_else(|| panic!("{question}: {error}"));
        let code = (refusal.code().code().to_owned(), refusal.message().to_owned());
        // The connection goes on.
        self.within(client.simple_query("SELECT 1")).expect("the next question is answered");
        code
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be made")
}

#[track_caller]
pub fn wait_for_address(log: impl Fn() -> String, mut has_ended: impl FnMut() -> bool) -> String {
    let started = Instant::now();
    loop {
        let text = log();
        if let Some((_, rest)) = text.split_once(ANSWERING)
            && let Some((address, _)) = rest.split_once("/playhead")
        {
            return address.rsplit('@').next().unwrap_or(address).to_owned();
        }
        assert!(!has_ended(), "it ended: {text}");
        assert!(started.elapsed() < PATIENCE, "it never listened: {text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub async fn connect(address: &str, more: &str) -> Result<Client, tokio_postgres::Error> {
    let (host, port) = address.rsplit_once(':').expect("an address has a port");
    let (client, connection) = tokio_postgres::connect(&format!("host={host} port={port} dbname=playhead {more}"), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

pub fn told(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
}

#[test]
fn tokio_postgres_gets_the_numbers_of_playhead_sql() {
    let served = Served::start();
    for question in [
        "SELECT count(*) FROM bronze.player_events",
        "SELECT count(*) FROM silver.playback_sessions",
        "SELECT sum(attempts) FROM gold.playback_1m",
        "SELECT sum(attempts) FROM gold.playback_1h",
        "SELECT count(*) FROM ops.alert_events",
    ] {
        let expected = served.bench.value(question).to_string();
        assert_eq!(served.text(question), expected.trim_matches('"'), "{question}");
    }
    // Unqualified names mean gold.
    assert_eq!(
        served.text("SELECT sum(attempts) FROM playback_1m"),
        served.text("SELECT sum(attempts) FROM gold.playback_1m")
    );
}

#[test]
fn tokio_postgres_prepared_with_typed_parameters_and_binary_rows() {
    let served = Served::start();
    let client = served.client();
    served.within(async {
        let statement = client
            .prepare("SELECT window_start, app_name, sum(attempts)::bigint AS attempts, avg(attempts)::float8, bool_and(is_final) FROM gold.playback_1m WHERE window_start >= $1 AND window_start < $2 AND attempts > $3 GROUP BY 1, 2 ORDER BY 1, 2")
            .await
            .unwrap_or_else(|error| panic!("{}", told(&error)));
        assert_eq!(statement.params(), [Type::TIMESTAMPTZ, Type::TIMESTAMPTZ, Type::INT8]);
        let types: Vec<&Type> = statement.columns().iter().map(tokio_postgres::Column::type_).collect();
        assert_eq!(types, [&Type::TIMESTAMPTZ, &Type::TEXT, &Type::INT8, &Type::FLOAT8, &Type::BOOL]);
        let (from, to) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000));
        let rows = client.query(&statement, &[&from, &to, &0_i64]).await.unwrap_or_else(|error| panic!("{}", told(&error)));
        assert!(!rows.is_empty());
        let attempts: i64 = rows.iter().map(|row| row.get::<_, i64>("attempts")).sum();
        assert_eq!(attempts, served.bench.int("SELECT sum(attempts) FROM gold.playback_1m"));
        assert!(rows.iter().all(|row| row.get::<_, SystemTime>(0) > from && row.get::<_, bool>(4)));
        assert!(client.query(&statement, &[&to, &to, &0_i64]).await.expect("it runs twice").is_empty());
    });
}

#[test]
fn what_changes_anything_is_refused_and_says_so() {
    let served = Served::start();
    for statement in [
        "INSERT INTO gold.playback_1m SELECT * FROM gold.playback_1m",
        "UPDATE gold.playback_1m SET attempts = 0",
        "DELETE FROM silver.playback_sessions",
        "DROP TABLE gold.playback_1m",
        "TRUNCATE gold.playback_1m",
        "CREATE TABLE gold.mine (a int)",
        "CREATE VIEW mine AS SELECT 1",
        "CREATE EXTERNAL TABLE mine STORED AS CSV LOCATION '/etc/passwd'",
        "COPY gold.playback_1m TO '/tmp/stolen.csv'",
        "COPY (SELECT 1) TO PROGRAM 'cat'",
    ] {
        let (code, message) = served.refused(statement);
        assert!(code == "25006" || code == "42601", "{statement}: {code} {message}");
    }
    let (code, message) = served.refused("INSERT INTO gold.playback_1m SELECT * FROM gold.playback_1m");
    assert_eq!(code, "25006");
    assert!(message.contains("read-only"), "{message}");
    for statement in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
    ] {
        let (code, message) = served.refused(statement);
        assert!(
            ["42P01", "42883", "42601"].contains(&code.as_str()),
            "{statement}: {code} {message}"
        );
    }
}

#[test]
fn errors_carry_code_and_place() {
    let served = Served::start();
    let client = served.client();
    let error = |question: &str| {
        let error = served.within(client.simple_query(question)).expect_err("it is refused");
        let error = error.as_db_error().expect("the server says why").clone();
        let place = match error.position() {
            Some(tokio_postgres::error::ErrorPosition::Original(place)) => Some(*place),
            _ => None,
        };
        (error.code().code().to_owned(), place)
    };
    assert_eq!(error("SELEC 1"), ("42601".to_owned(), Some(1)));
    assert_eq!(error("SELECT 1\n FROM nowhere").0, "42P01");
    assert_eq!(error("SELECT nothing FROM gold.playback_1m"), ("42703".to_owned(), Some(8)));
    assert_eq!(error("SELECT nothing(1)").0, "42883");
    assert_eq!(error("SELECT 1/0").0, "22012");
}

#[test]
fn a_query_without_end_is_stopped_and_a_cancelled_one_at_once() {
    let served = Served::start();
    let client = served.client();
    let endless = "SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 1000000000) b";
    served.within(async {
        client.simple_query("SET statement_timeout = '300ms'").await.expect("it is taken");
        let error = client.simple_query(endless).await.expect_err("its time is up");
        assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{}", told(&error));
        client.simple_query("SET statement_timeout = 0").await.expect("it is taken");
        let token = client.cancel_token();
        let (answer, ()) = tokio::join!(client.simple_query(endless), async {
            // Cancelled as often as it takes: it may not have begun.
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                token.cancel_query(NoTls).await.expect("it can be told");
                if client.is_closed() {
                    break;
                }
            }
        });
        let error = answer.expect_err("it was cancelled");
        assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{}", told(&error));
    });
}

#[test]
fn the_query_of_a_client_that_hangs_up_makes_room() {
    let served = Served::start_with("sql: {timeout: 1h}\n");
    let endless = "SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 1000000000) b";
    // More than there are places for queries at work.
    let many = 2 * std::thread::available_parallelism().map_or(1, usize::from) + 4;
    served.within(async {
        let (host, port) = served.address.rsplit_once(':').expect("an address has a port");
        let mut connections = Vec::new();
        for _ in 0..many {
            let text = format!("host={host} port={port} user=anybody");
            let (client, connection) = tokio_postgres::connect(&text, NoTls).await.expect("there is a place");
            connections.push(tokio::spawn(connection));
            tokio::spawn(async move { client.simple_query(endless).await.map(|rows| rows.len()) });
        }
        let client = connect(&served.address, "user=anybody").await.expect("there is a place");
        let (answer, ()) = tokio::join!(client.simple_query("SELECT 1"), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            connections.iter().for_each(tokio::task::JoinHandle::abort);
        });
        answer.unwrap_or_else(|error| panic!("{}", told(&error)));
    });
}

#[test]
fn what_would_take_memory_past_every_bound_is_refused() {
    let served = Served::start_with("sql: {memory: 64MiB, timeout: 20s}\n");
    for question in [
        "SELECT length(repeat('x', 2000000000))",
        "SELECT lpad('x', 2000000000)",
        "SELECT generate_series(1, 10000000000)",
        "WITH RECURSIVE t AS (SELECT 'x' AS s UNION ALL SELECT s || s FROM t) SELECT count(*) FROM t",
        "SELECT array_agg(a.value ORDER BY b.value) FROM generate_series(1, 100000) a, generate_series(1, 100000) b",
    ] {
        let (code, message) = served.refused(question);
        assert!(
            ["42883", "0A000", "53100", "53200", "57014"].contains(&code.as_str()),
            "{question}: {code} {message}"
        );
    }
}

#[test]
fn a_cross_join_of_everything_ends_with_a_clear_error() {
    let served = Served::start_with("sql: {memory: 32MiB, timeout: 20s}\n");
    let (code, message) = served.refused(
        "SELECT a.value, b.value, count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b GROUP BY 1, 2 ORDER BY 3",
    );
    assert!(["53100", "53200", "57014"].contains(&code.as_str()), "{code} {message}");
}

#[test]
fn an_answer_has_no_more_rows_than_the_settings_say() {
    let served = Served::start_with("  rows: 1000\n");
    assert_eq!(served.texts("SELECT value FROM generate_series(1, 1000)").len(), 1000);
    let (code, message) = served.refused("SELECT value FROM generate_series(1, 1001)");
    assert_eq!(code, "54000");
    assert!(message.contains("1000 rows"), "{message}");
}

#[test]
fn fifty_clients_ask_at_once_and_the_next_is_told() {
    let served = Served::start();
    let expected = served.text("SELECT sum(attempts) FROM gold.playback_1m");
    served.within(async {
        let mut clients = Vec::new();
        for _ in 0..50 {
            clients.push(connect(&served.address, "user=anybody").await.expect("there is a place"));
        }
        let Err(error) = connect(&served.address, "user=anybody").await else {
            panic!("there is no place");
        };
        assert_eq!(error.code().map(|code| code.code()), Some("53300"), "{}", told(&error));
        let asked: Vec<_> = clients
            .into_iter()
            .map(|client| tokio::spawn(async move { client.query_one("SELECT sum(attempts)::text FROM gold.playback_1m", &[]).await }))
            .collect();
        for answer in asked {
            let row = answer
                .await
                .expect("the task ends")
                .unwrap_or_else(|error| panic!("{}", told(&error)));
            assert_eq!(row.get::<_, String>(0), expected);
        }
    });
}

#[test]
fn a_password_is_asked_for_and_checked() {
    let mut bench = Bench::new();
    bench.ingest(&[&reference("ref_player.ndjson"), &reference("ref_cdn.ndjson")]);
    bench.set_variable("PLAYHEAD_TEST_PASSWORD", "open sesame");
    let served = Served::over(bench, "  user: noc\n  password: ${PLAYHEAD_TEST_PASSWORD}\n");
    served.within(async {
        let client = connect(&served.address, "user=noc password='open sesame'").await;
        client.unwrap_or_else(|error| panic!("{}", told(&error)));
        for wrong in ["user=noc password=sesame", "user=other password='open sesame'"] {
            let Err(error) = connect(&served.address, wrong).await else {
                panic!("it is refused");
            };
            assert_eq!(error.code().map(|code| code.code()), Some("28P01"), "{wrong}: {}", told(&error));
        }
    });
}

#[test]
fn an_address_of_the_network_without_a_password_is_refused() {
    let bench = Bench::new();
    let settings = bench.write("open.yaml", "postgres: {listen: '0.0.0.0:0'}\n");
    for command in ["check", "run", "serve"] {
        let output = bench
            .command(&[command])
            .arg("--settings")
            .arg(&settings)
            .output()
            .expect("the binary starts");
        assert_eq!(output.status.code(), Some(64), "{command}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("without a password"), "{command}: {text}");
    }
}

#[test]
fn transactions_and_settings_of_a_connection_are_harmless() {
    let served = Served::start();
    let client = served.client();
    served.within(async {
        let text = "SET application_name = 'me'; SET TIME ZONE 'Europe/Berlin'; SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY; BEGIN; SELECT 1; COMMIT; DISCARD ALL; DEALLOCATE ALL; RESET ALL";
        client.batch_execute(text).await.unwrap_or_else(|error| panic!("{}", told(&error)));
        client.batch_execute("BEGIN").await.expect("it begins");
        client.batch_execute("SELECT 1/0").await.expect_err("it fails");
        let error = client.batch_execute("SELECT 1").await.expect_err("only the end is taken");
        assert_eq!(error.code().map(|code| code.code()), Some("25P02"));
        client.batch_execute("ROLLBACK; SELECT 1").await.expect("it goes on");
    });
    assert_eq!(served.text("SHOW server_version_num"), "160006");
    assert_eq!(served.text("SHOW TIME ZONE"), "UTC");
}

#[test]
fn the_daemon_answers_what_it_has_just_taken() {
    let bench = Bench::new();
    let incoming = bench.path("incoming");
    std::fs::create_dir_all(&incoming).expect("a folder can be made");
    let settings = format!(
        "sources: [{{path: '{}'}}]\ningest: {{commit_every: 100ms, poll_every: 50ms}}\npostgres: {{listen: '127.0.0.1:0'}}\n",
        incoming.display()
    );
    let mut daemon = Daemon::start(&bench, &settings);
    let log = daemon.own_log();
    daemon.wait_until("SQL is answered", || log.text().contains(ANSWERING));
    let address = wait_for_address(|| log.text(), || false);
    let runtime = runtime();
    let client = runtime.block_on(connect(&address, "user=anybody")).expect("it lets anybody in");
    let asked = |question: &str| {
        let row = runtime.block_on(client.query_one(question, &[]));
        row.unwrap_or_else(|error| panic!("{question}: {}", told(&error))).get::<_, i64>(0)
    };
    assert_eq!(asked("SELECT count(*) FROM silver.player_events"), 0);
    std::fs::copy(reference("ref_player.ndjson"), incoming.join("player.ndjson")).expect("the file can be copied");
    daemon.wait_until("the events are seen", || asked("SELECT count(*) FROM silver.player_events") == 25);
    // The newest windows are open, and answered from silver.
    daemon.wait_until("open windows are answered", || {
        asked("SELECT count(*) FROM gold.playback_1m WHERE NOT is_final") > 0
    });
    let attempts = asked("SELECT sum(attempts)::bigint FROM gold.playback_1m");
    assert!(daemon.stop().success());
    assert_eq!(attempts, bench.int("SELECT sum(attempts) FROM gold.playback_1m"));
}

#[test]
fn grafana_connects_and_builds_a_query() {
    let served = Served::start();
    assert_eq!(served.text("SELECT 1"), "1");
    assert_eq!(served.text("SELECT current_setting('server_version_num')::int/100"), "1600");
    assert!(
        served
            .texts("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
            .is_empty()
    );
    let tables = served.texts(
        r#"select quote_ident(table_name) as "table" from information_schema.tables
    where quote_ident(table_schema) not in ('information_schema', 'pg_catalog', '_timescaledb_cache', '_timescaledb_catalog', '_timescaledb_internal', '_timescaledb_config', 'timescaledb_information', 'timescaledb_experimental')
      and quote_ident(table_schema) IN (
      SELECT
          CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
      FROM
          generate_series(
              array_lower(string_to_array(current_setting('search_path'),','),1),
              array_upper(string_to_array(current_setting('search_path'),','),1)
          ) as i,
          string_to_array(current_setting('search_path'),',') s
      )"#,
    );
    assert!(tables.contains(&"playback_1m".to_owned()), "{tables:?}");
    let columns = served.texts(
        r#"select quote_ident(column_name) as "column", data_type as "type"
    from information_schema.columns
    where quote_ident(table_name) = 'playback_1m'"#,
    );
    assert!(
        columns.contains(&"attempts".to_owned()) && columns.contains(&"window_start".to_owned()),
        "{columns:?}"
    );
    let kind = |column: &str| {
        served.text(&format!(
            "SELECT data_type FROM information_schema.columns WHERE table_schema = 'gold' AND table_name = 'playback_1m' AND column_name = '{column}'"
        ))
    };
    assert_eq!(kind("window_start"), "timestamp with time zone");
    assert_eq!(kind("attempts"), "bigint");
    assert_eq!(kind("app_name"), "text");
    assert_eq!(kind("is_final"), "boolean");
}

#[test]
fn grafana_macros_run_as_it_expands_them() {
    let served = Served::start();
    let filter = "window_start BETWEEN '2020-01-01T00:00:00Z' AND '2040-01-01T00:00:00.123Z'";
    let attempts = served.text("SELECT sum(attempts) FROM gold.playback_1m");
    for time in [
        "floor(extract(epoch from window_start)/300)*300 AS \"time\"",
        "window_start AS \"time\"",
        "extract(epoch from window_start) AS \"time\"",
        "date_trunc('hour', window_start) AS \"time\"",
        "date_bin('5 minutes', window_start, TIMESTAMPTZ '2000-01-01') AS \"time\"",
        "to_timestamp(floor(extract(epoch from window_start)/300)*300) AS \"time\"",
        "window_start AT TIME ZONE 'UTC' AS \"time\"",
    ] {
        let question =
            format!("SELECT sum(a) FROM (SELECT {time}, sum(attempts) AS a FROM gold.playback_1m WHERE {filter} GROUP BY 1 ORDER BY 1) t");
        assert_eq!(served.text(&question), attempts, "{time}");
    }
    for condition in [
        "extract(epoch from window_start) BETWEEN 1577836800 AND 2208988800",
        "extract(epoch from window_start) >= 1577836800 AND extract(epoch from window_start) <= 2208988800",
        "window_start >= '2020-01-01T00:00:00Z'::timestamptz",
        "window_start > to_timestamp(1577836800)",
        "window_start > now() - interval '40 years'",
        "app_name IN ('x') OR '$__all' = '$__all'",
    ] {
        let question = format!("SELECT sum(attempts) FROM gold.playback_1m WHERE {condition}");
        assert_eq!(served.text(&question), attempts, "{condition}");
    }
    served.texts("SELECT window_start AS \"time\", app_name AS metric, sum(attempts)::float / nullif(count(*), 0) AS value FROM gold.playback_1m GROUP BY 1, 2 ORDER BY 1 LIMIT 10");
    served.texts("SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY attempts) FROM gold.playback_1m");
    served.texts("SELECT DISTINCT app_name AS __text, app_name AS __value FROM gold.playback_1m ORDER BY 1");
}

#[test]
fn psql_shows_tables_columns_and_rows() {
    if !services::is_available("psql") {
        return;
    }
    let served = Served::start();
    let (host, port) = served.address.rsplit_once(':').expect("an address has a port");
    let psql = services::path("psql");
    let told = |command: &str| {
        let output = Command::new(&psql)
            .args([
                "-X",
                "-A",
                "-t",
                "-h",
                host,
                "-p",
                port,
                "-U",
                "me",
                "-d",
                "playhead",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                command,
            ])
            .output()
            .expect("psql starts");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{command}: {told}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        told
    };
    assert!(told("\\dn").contains("gold|"));
    assert!(told("\\l").contains("playhead|"));
    assert!(told("\\dt gold.*").contains("gold|playback_1m|table"));
    assert!(told("\\dv").contains("cdn_compare_1h"));
    assert!(told("\\d gold.playback_1m").contains("window_start|timestamp with time zone"));
    assert_eq!(
        told("SELECT sum(attempts) FROM playback_1m").trim(),
        served.text("SELECT sum(attempts) FROM playback_1m")
    );
    assert_eq!(told("SELECT count(*), max(window_start) FROM playback_1m").matches('|').count(), 1);
}

/// The rows that a Python driver gets, prepared and with a parameter.
#[track_caller]
fn python_gets_the_same_rows(driver: &str) {
    if !services::is_available("sql-clients") {
        return;
    }
    let served = Served::start();
    let (host, port) = served.address.rsplit_once(':').expect("an address has a port");
    let output = Command::new(services::path("sql-clients"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/sql-clients/ask.py"))
        .args([driver, host, port])
        .output()
        .expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    let rows = rows.as_array().expect("it prints rows");
    let attempts: i64 = rows.iter().filter_map(|row| row[1].as_i64()).sum();
    assert_eq!(attempts, served.bench.int("SELECT sum(attempts) FROM gold.playback_1m"));
    let windows = served.bench.int("SELECT count(DISTINCT window_start) FROM gold.playback_1m");
    assert_eq!(i64::try_from(rows.len()).expect("they are few"), windows);
    assert!(
        rows.iter()
            .all(|row| row[0].as_str().is_some_and(|start| start.ends_with("+00:00")) && row[3] == true)
    );
}

#[test]
fn psycopg_gets_the_same_rows() {
    python_gets_the_same_rows("psycopg");
}

#[test]
fn asyncpg_gets_the_same_rows() {
    python_gets_the_same_rows("asyncpg");
}

#[test]
fn pg8000_gets_the_same_rows() {
    python_gets_the_same_rows("pg8000");
}

#[test]
fn psql_lists_what_there_is() {
    let served = Served::start();
    // As `\dn`, `\l`, `\dt gold.*` and `\d gold.playback_1m` of psql 16 begin.
    let schemas = served.texts(
        "SELECT n.nspname AS \"Name\", pg_catalog.pg_get_userbyid(n.nspowner) AS \"Owner\" FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1",
    );
    for layer in ["bronze", "silver", "gold", "ops"] {
        assert!(schemas.contains(&layer.to_owned()), "{schemas:?}");
    }
    let tables = served.texts(
        "SELECT c.relname FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r','p','s','') AND n.nspname OPERATOR(pg_catalog.~) '^(gold)$' COLLATE pg_catalog.default ORDER BY 1",
    );
    assert!(tables.contains(&"playback_1m".to_owned()), "{tables:?}");
    let number = served.text("SELECT c.oid FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relname OPERATOR(pg_catalog.~) '^(playback_1m)$' COLLATE pg_catalog.default AND n.nspname OPERATOR(pg_catalog.~) '^(gold)$' COLLATE pg_catalog.default");
    let columns = served.texts(&format!(
        "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a WHERE a.attrelid = '{number}' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
    ));
    assert!(columns.contains(&"attempts".to_owned()), "{columns:?}");
    assert!(
        served
            .texts("SELECT datname FROM pg_catalog.pg_database")
            .contains(&"playhead".to_owned())
    );
}

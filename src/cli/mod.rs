//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Loaded, Options};
use crate::daemon::{self, DaemonError};
use crate::mysql::{MysqlStore, migrate, preflight};
use crate::position::PositionStore;
use crate::telemetry::logging;

/// Exit codes; scripts may rely on them.
pub mod code {
    /// Clean end.
    pub const CLEAN: u8 = 0;
    /// A relay halted.
    pub const HALTED: u8 = 1;
    /// The configuration cannot be used.
    pub const CONFIGURATION: u8 = 64;
    /// A server is unavailable or refuses.
    pub const UNAVAILABLE: u8 = 69;
    /// Something within this process failed.
    pub const INTERNAL: u8 = 70;
    /// Preflight refused.
    pub const PREFLIGHT: u8 = 78;
}

#[derive(Parser)]
#[command(
    name = "outboxd",
    version,
    about = "Relays transactional outbox tables from MySQL's binlog to Kafka, in order"
)]
#[command(
    after_help = "Examples:\n  outboxd migrate            create the tables that are missing\n  outboxd check              say what is not set up as it must be\n  outboxd run                relay until SIGTERM\n  outboxd config             every key in force, and where it comes from\n  OUTBOXD__MYSQL__PASSWORD=… outboxd --set log.level=debug run\n\nExit codes: 0 clean, 1 a relay halted, 64 configuration, 69 a server is unavailable, 70 internal, 78 preflight refused"
)]
struct Arguments {
    /// Configuration file [default: ./outboxd.toml, then /etc/outboxd/outboxd.toml]
    #[arg(short, long, global = true)]
    config: Option<PathBuf>,
    /// Sets a key, over file and environment: `--set log.level=debug`
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    sets: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Relay until SIGTERM or SIGINT; a second signal leaves at once
    Run,
    /// Look whether MySQL is set up as it must be
    Check,
    /// Create the position table and the outbox tables that are missing
    Migrate {
        /// Print the statements instead of running them
        #[arg(long)]
        print: bool,
    },
    /// Saved positions
    Position {
        #[command(subcommand)]
        command: PositionCommand,
    },
    /// Every key in force, with its source; secrets as ***
    Config,
    /// Completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum PositionCommand {
    /// Show the saved position of every table
    Show,
}

/// Parses the command line, runs the command, and gives the exit code.
pub async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { code::CONFIGURATION } else { code::CLEAN };
            return if error.print().is_ok() { code.into() } else { code::INTERNAL.into() };
        }
    };
    if let Command::Completions { shell } = arguments.command {
        clap_complete::generate(shell, &mut Arguments::command(), "outboxd", &mut std::io::stdout());
        return code::CLEAN.into();
    }
    let loaded = match config::load(&Options::of_process(arguments.config, arguments.sets)) {
        Ok(loaded) => loaded,
        Err(errors) => {
            say(&format!("the configuration cannot be used:\n{errors}"));
            return code::CONFIGURATION.into();
        }
    };
    match execute(arguments.command, loaded).await {
        Ok(code) => code.into(),
        Err(error) => {
            say(&error.to_string());
            match error {
                DaemonError::Configuration(_) | DaemonError::Password(_) => code::CONFIGURATION,
                DaemonError::Preflight(_) => code::PREFLIGHT,
                DaemonError::Server(_) | DaemonError::Store(_) => code::UNAVAILABLE,
                DaemonError::Producer(_) | DaemonError::Internal(_) => code::INTERNAL,
            }
            .into()
        }
    }
}

#[allow(clippy::print_stderr, reason = "this is the command line")]
fn say(text: &str) {
    anstream::eprintln!("outboxd: {text}");
}

#[allow(clippy::print_stdout, reason = "this is the command line")]
fn show(text: &dyn std::fmt::Display) {
    anstream::println!("{text}");
}

async fn execute(command: Command, loaded: Loaded) -> Result<u8, DaemonError> {
    match command {
        Command::Run => run(loaded).await,
        Command::Check => check(&loaded).await,
        Command::Migrate { print } => apply(&loaded, print).await,
        Command::Position { command: PositionCommand::Show } => positions(&loaded).await,
        Command::Config => {
            let mut table = Table::new();
            table.load_style(UTF8_HORIZONTAL_ONLY).set_header(["key", "value", "source"]);
            for key in loaded.effective() {
                table.add_row([key.key, key.value, key.source.to_string()]);
            }
            show(&table);
            Ok(code::CLEAN)
        }
        Command::Completions { .. } => Ok(code::CLEAN),
    }
}

async fn run(loaded: Loaded) -> Result<u8, DaemonError> {
    logging::init(&loaded.config.log).map_err(|error| DaemonError::Configuration(error.to_string()))?;
    let stop = CancellationToken::new();
    let mut signals = signals().map_err(|error| DaemonError::Internal(error.to_string()))?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        signals.recv().await;
        tracing::info!("stopping");
        stopping.cancel();
        signals.recv().await;
        // What is in flight is published again after the restart.
        std::process::exit(code::INTERNAL.into());
    });
    let summary = daemon::run(loaded.config, stop).await?;
    Ok(if summary.halted > 0 { code::HALTED } else { code::CLEAN })
}

/// SIGTERM and SIGINT.
fn signals() -> std::io::Result<tokio::sync::mpsc::UnboundedReceiver<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut signal, sender) = (signal(kind)?, sender.clone());
        tokio::spawn(async move { while signal.recv().await.is_some() && sender.send(()).is_ok() {} });
    }
    Ok(receiver)
}

fn server(error: &mysql_async::Error) -> DaemonError {
    DaemonError::Server(format!("mysql: {error}"))
}

async fn check(loaded: &Loaded) -> Result<u8, DaemonError> {
    let (log, _) = daemon::endpoints(&loaded.config)?;
    let mut conn = log.connect().await.map_err(|error| server(&error))?;
    let existing = preflight::tables(&mut conn).await.map_err(|error| server(&error))?;
    let subscriptions: Vec<_> =
        daemon::select(&loaded.config, &existing)?.into_iter().map(|table| table.subscription).collect();
    let server_id = loaded.config.mysql.resolve_server_id();
    let findings = preflight::check(&mut conn, &subscriptions, server_id).await.map_err(|error| server(&error))?;
    if !findings.is_empty() {
        return Err(DaemonError::Preflight(findings));
    }
    show(&format!("{} tables, nothing to cure", subscriptions.len()));
    Ok(code::CLEAN)
}

async fn apply(loaded: &Loaded, print: bool) -> Result<u8, DaemonError> {
    let tables: Vec<_> =
        daemon::select(&loaded.config, &[])?.into_iter().map(|table| table.subscription.table).collect();
    let positions = &loaded.config.positions;
    let of_positions = migrate::statements(Some((&positions.schema, &positions.table)), &[]);
    let of_outboxes = migrate::statements(None, &tables);
    if print {
        of_positions.iter().chain(&of_outboxes).for_each(|sql| show(&format!("{sql};")));
        return Ok(code::CLEAN);
    }
    let (log, store) = daemon::endpoints(&loaded.config)?;
    for (endpoint, statements) in [(store, of_positions), (log, of_outboxes)] {
        let mut conn = endpoint.connect().await.map_err(|error| server(&error))?;
        migrate::apply(&mut conn, &statements).await.map_err(|error| server(&error))?;
    }
    show(&format!("{} outbox tables and the position table are there", tables.len()));
    Ok(code::CLEAN)
}

async fn positions(loaded: &Loaded) -> Result<u8, DaemonError> {
    let (_, endpoint) = daemon::endpoints(&loaded.config)?;
    let positions = &loaded.config.positions;
    let store = MysqlStore::new(endpoint, &positions.schema, &positions.table, std::time::Duration::ZERO);
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(["table", "position", "saved", "owner", "epoch"]);
    for saved in store.list().await? {
        let micros = i64::try_from(saved.saved_micros).unwrap_or(i64::MAX);
        let when = jiff::Timestamp::from_microsecond(micros).map_or_else(|_| "?".to_owned(), |when| when.to_string());
        let position = saved.position.map_or_else(|| "none yet".to_owned(), |position| position.to_string());
        table.add_row([saved.table.to_string(), position, when, saved.owner, saved.epoch.to_string()]);
    }
    show(&table);
    Ok(code::CLEAN)
}

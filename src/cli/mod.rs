//! The command line.

mod check;
mod completions;
mod config;
mod decode;
mod demo;
mod doctor;
mod hand;
mod health;
mod import_debezium;
mod man;
mod migrate;
mod parked;
mod position;
mod reload;
mod replay;
mod run;
mod signals;
mod status;
mod verify;
mod whereabouts;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::decode::DecodeArguments;
use self::demo::DemoArguments;
use self::doctor::DoctorArguments;
use self::hand::{HandArguments, PauseArguments};
use self::health::HealthArguments;
use self::import_debezium::ImportArguments;
use self::parked::ParkedCommand;
use self::position::PositionCommand;
use self::reload::{LogArguments, ReloadArguments};
use self::replay::ReplayArguments;
use self::status::StatusArguments;
use self::verify::VerifyArguments;
use crate::config::{ConfigErrors, Options, load, load_admin};
use crate::daemon::DaemonError;
use crate::terminal::text::printable;

/// Exit codes; scripts may rely on them.
pub mod code {
    /// Done, or stopped: the log says whether everything in flight was acknowledged.
    pub const CLEAN: u8 = 0;
    /// A relay halted.
    pub const HALTED: u8 = 1;
    /// The daemon is not as it should be, or does not answer.
    pub const UNHEALTHY: u8 = 1;
    /// What is committed and what is in Kafka differ.
    pub const DIFFERENCES: u8 = 2;
    /// The configuration cannot be used.
    pub const CONFIGURATION: u8 = 64;
    /// Something in a binlog cannot be decoded.
    pub const DATA: u8 = 65;
    /// A file cannot be read.
    pub const NO_INPUT: u8 = 66;
    /// A server is unavailable or refuses.
    pub const UNAVAILABLE: u8 = 69;
    /// Something within this process failed, or a stop was given up or cut short.
    pub const INTERNAL: u8 = 70;
    /// The daemon refuses a change, or nobody has confirmed it.
    pub const REFUSED: u8 = 77;
    /// Preflight refused.
    pub const PREFLIGHT: u8 = 78;
    /// The demo was told to stop before its verdict.
    pub const INTERRUPTED: u8 = 130;
}

#[derive(Parser)]
#[command(
    name = "outboxd",
    version,
    about = "Relays transactional outbox tables from MySQL's binlog to Kafka, in order"
)]
#[command(
    after_help = "Examples:\n  outboxd demo               see it work on private servers, in a checkout\n  outboxd migrate            create the tables that are missing\n  outboxd check              say what is not set up as it must be\n  outboxd run                relay until SIGTERM\n  outboxd status --watch     what every relay is doing\n  outboxd pause TABLE…       relay nothing of it until resume; also retry\n  outboxd reload --dry-run   what a changed configuration would change\n  outboxd doctor             everything a bug report needs, in one file\n  outboxd verify             whether anything is missing in Kafka\n  outboxd decode FILE…       events in binlog files, without a server\n  outboxd config             every key in force, and where it comes from\n  OUTBOXD__MYSQL__PASSWORD=… outboxd --set log.level=debug run\n\nExit codes: 0 done or stopped, 1 a relay has halted (`run`, `status`) or the daemon is not ready (`health`), 2 `verify` found differences, 64 configuration, 65 a binlog or Debezium's offsets cannot be understood, or `verify` could not look at all of the log, 66 a file cannot be read (`decode`, `import-debezium`), 69 a server is unavailable or refuses, 70 internal, left at once by a second signal, or a stop that was given up, 77 a change is refused, 78 preflight refused, 130 interrupted"
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
    /// Look whether MySQL and Kafka are set up as they must be, and say what cures what is not
    Check {
        /// A table for people, or JSON for machines
        #[arg(long, value_enum, default_value = "text")]
        format: check::Format,
    },
    /// Create the position table and the outbox tables that are missing
    Migrate {
        /// Print the statements instead of running them; those of the position table from its first version on
        #[arg(long)]
        print: bool,
    },
    /// Show what every relay is doing: asks the running daemon, or else the position store
    Status(StatusArguments),
    /// Ask the running daemon whether it is ready: exits with 0 if it is, with 1 if not or if it does not answer, and with
    /// 64 if the configuration does not say where to ask
    Health(HealthArguments),
    /// Relay nothing of these tables until `resume`, also after a restart; asks the running daemon
    Pause(PauseArguments),
    /// Go on with tables that are paused, from their saved positions; asks the running daemon
    Resume(HandArguments),
    /// Start tables once more that have halted, from their saved positions; asks the running daemon
    Retry(HandArguments),
    Replay(ReplayArguments),
    Reload(ReloadArguments),
    Log(LogArguments),
    /// Aggregates whose events are set aside, because one of them cannot be delivered; asks the running daemon
    Parked {
        #[command(subcommand)]
        command: ParkedCommand,
    },
    /// Saved positions
    Position {
        #[command(subcommand)]
        command: PositionCommand,
    },
    /// Compare what is committed with what is in Kafka: what is missing, duplicate, out of order or unexpected
    Verify(VerifyArguments),
    Doctor(DoctorArguments),
    /// Every key in force, with its source; secrets as ***
    Config,
    /// Print the events in binlog files as JSON lines, without a server
    Decode(DecodeArguments),
    Demo(DemoArguments),
    ImportDebezium(ImportArguments),
    /// Completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    #[command(hide = true)]
    Man {
        /// Where to; created if it is not there
        #[arg(long, value_name = "FOLDER")]
        dir: PathBuf,
    },
}

/// What the command line takes.
pub fn command_line() -> clap::Command {
    Arguments::command()
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
    match Box::pin(execute(arguments)).await {
        Ok(code) => code.into(),
        Err(error) => {
            say(&error.to_string());
            code_of(&error).into()
        }
    }
}

fn code_of(error: &DaemonError) -> u8 {
    match error {
        DaemonError::Configuration(_) | DaemonError::Password(_) => code::CONFIGURATION,
        DaemonError::Preflight(_) => code::PREFLIGHT,
        DaemonError::Server(_) | DaemonError::Store(_) => code::UNAVAILABLE,
        DaemonError::Internal(_) | DaemonError::Overdue { .. } => code::INTERNAL,
    }
}

#[allow(clippy::print_stderr, reason = "this is the command line")]
fn say(text: &str) {
    anstream::eprintln!("outboxd: {}", printable(text));
}

#[allow(clippy::print_stdout, reason = "this is the command line")]
fn show(text: &dyn std::fmt::Display) {
    anstream::println!("{}", printable(&text.to_string()));
}

/// Shows a line of a command that goes on for ever, and says whether somebody still reads them.
fn show_on(text: &dyn std::fmt::Display) -> Result<bool, DaemonError> {
    match writeln!(anstream::stdout(), "{}", printable(&text.to_string())) {
        Ok(()) => Ok(true),
        // Who reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(DaemonError::Internal(format!("the output cannot be written: {error}"))),
    }
}

async fn execute(Arguments { config, sets, command }: Arguments) -> Result<u8, DaemonError> {
    let options = Options::of_process(config.clone(), sets.clone());
    let loaded = || load(&options).map_err(|errors| unusable(&errors));
    match command {
        Command::Run => {
            let loaded = loaded()?;
            run::run(options, loaded).await
        }
        Command::Check { format } => check::check(&loaded()?, format).await,
        Command::Migrate { print } => migrate::migrate(&loaded()?, print).await,
        Command::Status(arguments) => status::status(arguments, load_admin(&options), load(&options)).await,
        Command::Health(arguments) => health::health(arguments, load_admin(&options)).await,
        Command::Pause(arguments) => hand::pause(arguments, load_admin(&options)).await,
        Command::Resume(arguments) => hand::resume(arguments, load_admin(&options)).await,
        Command::Retry(arguments) => hand::retry(arguments, load_admin(&options)).await,
        Command::Replay(arguments) => replay::replay(arguments, &loaded()?).await,
        Command::Reload(arguments) => reload::reload(arguments, load_admin(&options)).await,
        Command::Log(arguments) => reload::log(arguments, load_admin(&options)).await,
        Command::Parked { command } => parked::parked(command, load_admin(&options)).await,
        Command::Position { command } => position::position(command, loaded()?).await,
        Command::Verify(arguments) => verify::verify(arguments, &loaded()?).await,
        Command::Doctor(arguments) => doctor::doctor(arguments, load_admin(&options), load(&options)).await,
        Command::Config => Ok(config::config(&loaded()?)),
        Command::Decode(arguments) => decode::decode(arguments, || load(&options)),
        Command::ImportDebezium(arguments) => import_debezium::import(arguments, &loaded()?).await,
        Command::Demo(arguments) => demo::demo(arguments, config.as_deref(), &sets).await,
        Command::Completions { shell } => Ok(completions::completions(shell)),
        Command::Man { dir } => man::man(&dir),
    }
}

fn unusable(errors: &ConfigErrors) -> DaemonError {
    DaemonError::Configuration(format!("the configuration cannot be used:\n{errors}"))
}

fn server(error: &mysql_async::Error) -> DaemonError {
    DaemonError::Server(format!("mysql: {error}"))
}

//! The `outboxd` command.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    outboxd::cli::main().await
}

//! The `outboxd` command.

use std::process::ExitCode;

/// Also of librdkafka, whose records are allocated by one thread and freed by another.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    outboxd::cli::main().await
}

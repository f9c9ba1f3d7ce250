//! `outboxd completions`: for the shells.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Arguments, code};

pub(super) fn completions(shell: Shell) -> u8 {
    clap_complete::generate(shell, &mut Arguments::command(), "outboxd", &mut std::io::stdout());
    code::CLEAN
}

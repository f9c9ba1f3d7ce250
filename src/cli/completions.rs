//! `outboxd completions`: for the shells.

use clap_complete::Shell;

use super::{code, command_line};

pub(super) fn completions(shell: Shell) -> u8 {
    clap_complete::generate(shell, &mut command_line(), "outboxd", &mut std::io::stdout());
    code::CLEAN
}

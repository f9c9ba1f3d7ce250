//! `outboxd man`: manual pages, for packages.

use std::path::Path;

use clap::CommandFactory;

use super::{Arguments, code, show};
use crate::daemon::DaemonError;

/// One page for the command and one for each of its subcommands, in the section of commands.
pub(super) fn man(folder: &Path) -> Result<u8, DaemonError> {
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Arguments::command().disable_help_subcommand(true), folder));
    match written {
        Ok(()) => {
            show(&format_args!("manual pages are in {}", folder.display()));
            Ok(code::CLEAN)
        }
        Err(error) => Err(DaemonError::Internal(format!("{}: {error}", folder.display()))),
    }
}

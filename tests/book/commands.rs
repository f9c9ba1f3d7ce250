//! Commands: every `outboxd …` that a page shows is one that the program takes.

use clap::error::ErrorKind;
use outboxd::cli::command_line;
use regex::Regex;

use crate::page::{beside, book};

/// The words of a command that follow the settings in front of it (`A=b outboxd run`); `None` where it is another program's.
fn of_outboxd(line: &str) -> Option<Vec<String>> {
    // What follows in a shell is another command.
    let line = line.trim().trim_start_matches("$ ").trim_end_matches(" &").trim_end_matches('\\');
    let words = shlex::split(line)?;
    let is_setting = |word: &&String| word.split_once('=').is_some_and(|(name, _)| name.starts_with("OUTBOXD_"));
    let words: Vec<_> = words.iter().skip_while(is_setting).cloned().collect();
    let end = words.iter().position(|word| ["|", ">", "<", "&&", ";", "2>"].contains(&word.as_str()));
    let words = words[..end.unwrap_or(words.len())].to_vec();
    (words.first()? == "outboxd").then_some(words)
}

/// What is wrong with a command; a page may leave out what has to follow, where it only names one.
fn wrong(words: &[String], may_be_begun: bool) -> Option<String> {
    let begun = [ErrorKind::MissingRequiredArgument, ErrorKind::MissingSubcommand];
    let begun = [&begun[..], &[ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand]].concat();
    // What a reader puts a table's name for.
    let words = words.iter().map(|word| if word == "TABLE" { "schema.table" } else { word });
    let error = command_line().try_get_matches_from(words).err()?;
    let is_answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let is_right = is_answer || may_be_begun && begun.contains(&error.kind());
    (!is_right).then(|| error.to_string().lines().next().unwrap_or_default().to_owned())
}

#[test]
fn every_command_that_is_shown_is_taken() {
    let span = Regex::new("`([^`]+)`").unwrap();
    let (mut lines, mut spans, mut found) = (0, 0, Vec::new());
    for page in book().into_iter().chain(beside()) {
        // History names commands as they were.
        if page.path.ends_with("CHANGELOG.md") {
            continue;
        }
        // The README's list has the arguments in its comments.
        let is_list = page.path.ends_with("README.md");
        let shell = |language: &str| ["", "sh", "bash", "console"].contains(&language);
        for line in page.blocks.iter().filter(|block| shell(&block.language)).flat_map(|block| block.text.lines()) {
            if let Some(words) = of_outboxd(line) {
                lines += 1;
                found.extend(wrong(&words, is_list).map(|why| format!("{}: {line}: {why}", page.path.display())));
            }
        }
        let prose = page.prose.join(" ");
        for span in span.captures_iter(&prose) {
            if let Some(words) = of_outboxd(&span[1]).filter(|words| words.len() > 1) {
                spans += 1;
                let why = wrong(&words, true);
                found.extend(why.map(|why| format!("{}: `{}`: {why}", page.path.display(), &span[1])));
            }
        }
    }
    assert!(lines > 30 && spans > 60, "commands are found: {lines} in blocks, {spans} in text");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_command_that_is_not_taken_is_found() {
    let wrong = |line: &str| wrong(&of_outboxd(line).unwrap(), true);
    assert_eq!(wrong("$ OUTBOXD__LOG__LEVEL=debug outboxd --set 'log.level=a b' run  # until SIGTERM"), None);
    assert_eq!(wrong("outboxd decode FILE… --tables 'a.b*' | head"), None);
    assert_eq!(wrong("outboxd position"), None);
    assert!(wrong("outboxd positions show").unwrap().contains("unrecognized subcommand 'positions'"));
    assert!(wrong("outboxd status --json").unwrap().contains("unexpected argument '--json'"));
    assert_eq!(of_outboxd("mysql outboxd"), None);
}

#[test]
fn a_block_that_is_not_run_says_why() {
    let marks: Vec<_> = book().into_iter().flat_map(|page| page.blocks).filter_map(|block| block.mark).collect();
    assert!(marks.iter().all(|mark| mark == "not run"), "{marks:?}");
    assert!(marks.len() > 3, "marks are found: {marks:?}");
}

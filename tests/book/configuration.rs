//! Configuration: every key that a page shows is one, with a value that it takes.

use outboxd::config::{Options, load};
use tempfile::NamedTempFile;

use crate::page::{Block, Page, beside, book};

/// What a page leaves out, because it is about something else.
const REST: [(&str, &str); 2] =
    [("OUTBOXD__MYSQL__URL", "mysql://outboxd@db"), ("OUTBOXD__KAFKA__BOOTSTRAP_SERVERS", "kafka:9092")];
const OUTBOX: &str = "[[outbox]]\ntables = \"delivery.delivery-outbox{1..4}\"\ntopic = \"delivery\"\n";

/// What is wrong with a configuration, but that the files which it names are on another machine.
fn wrong(file: &str, environment: &[(String, String)]) -> Vec<String> {
    let path = NamedTempFile::new().unwrap();
    std::fs::write(path.path(), file).unwrap();
    let rest = REST.map(|(name, value)| (name.to_owned(), value.to_owned()));
    // What a page shows goes before what it leaves out.
    let rest = rest.into_iter().filter(|(name, _)| {
        let key = format!("{} = ", name.rsplit_once("__").map_or("", |(_, key)| key).to_lowercase());
        !file.lines().any(|line| line.starts_with(&key)) && !environment.iter().any(|(shown, _)| shown == name)
    });
    let env = rest.chain(environment.iter().cloned()).collect();
    let options = Options { file: Some(path.path().to_owned()), env, ..Options::default() };
    let errors = load(&options).err();
    let errors = errors.iter().flat_map(outboxd::config::ConfigErrors::iter);
    errors.filter(|error| !error.found.contains("No such file")).map(ToString::to_string).collect()
}

/// A block of TOML as a whole file.
fn whole(block: &Block) -> String {
    let text = &block.text;
    match (text.contains("[[outbox]]"), text.find("[outbox.")) {
        (true, _) => text.clone(),
        (false, Some(at)) => format!("{}{OUTBOX}{}", &text[..at], &text[at..]),
        (false, None) => format!("{text}\n{OUTBOX}"),
    }
}

fn all(pages: &[Page]) -> impl Iterator<Item = (&Page, &Block)> {
    pages.iter().flat_map(|page| page.blocks.iter().map(move |block| (page, block)))
}

#[test]
fn every_file_that_is_shown_is_taken() {
    let pages: Vec<_> = book().into_iter().chain(beside()).collect();
    let mut found = Vec::new();
    let mut count = 0;
    for (page, block) in all(&pages).filter(|(_, block)| block.language == "toml") {
        count += 1;
        let why = wrong(&whole(block), &[]);
        found.extend(why.into_iter().map(|why| format!("{}: {why}\n{}", page.path.display(), block.text)));
    }
    assert!(count > 8, "files are found: {count}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_environment_that_is_shown_is_taken() {
    let pages = book();
    let mut count = 0;
    for (page, block) in all(&pages).filter(|(_, block)| block.language.is_empty()) {
        let settings: Option<Vec<_>> = block.text.lines().map(setting).collect();
        if let Some(settings) = settings.filter(|settings| !settings.is_empty()) {
            count += 1;
            assert_eq!(wrong("", &settings), [""; 0], "{}: {}", page.path.display(), block.text);
        }
    }
    assert!(count > 0, "environments are found");
}

/// `OUTBOXD__KEY=value   # why`.
fn setting(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=').filter(|(name, _)| name.starts_with("OUTBOXD__"))?;
    let value = value.split_once("  ").map_or(value, |(value, _)| value);
    Some((name.to_owned(), value.to_owned()))
}

#[test]
fn a_key_that_is_not_there_is_found() {
    let told = wrong(&format!("[relay]\nqueue_byte = \"1 MiB\"\n{OUTBOX}"), &[]);
    assert!(told.len() == 1 && told[0].contains("relay.queue_bytes"), "{told:?}");
    assert_eq!(wrong(OUTBOX, &[]), [""; 0]);
}

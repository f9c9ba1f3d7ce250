//! The status page of a running daemon, in a real Chromium.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::browser::{Browser, REBOUND};
use crate::daemon::Daemon;
use crate::stage::{Setup, Stage, free_port, until};

const SECOND: &str = "delivery.delivery-outbox2";
const FOURTH: &str = "delivery.delivery-outbox4";

/// Four tables, of which the last one has a block, and a topic, of its own.
fn with_a_fourth(setup: Setup) -> Setup {
    let setup = setup.blocks(2).set("OUTBOX__0__TABLES", "delivery.delivery-outbox{1..3}");
    setup.set("OUTBOX__1__TABLES", FOURTH).set("OUTBOX__1__START", "earliest")
}

async fn address(daemon: &Daemon) -> String {
    daemon.logs("admin_listening").await;
    format!("http://{}", daemon.address().unwrap())
}

fn status(daemon: &Daemon, table: &str) -> Value {
    let page = daemon.page(&format!("/api/v1/tables/{table}"));
    page.map_or(Value::Null, |(_, body)| serde_json::from_str(&body).unwrap())
}

/// An expression: the text of a table's row.
fn row(table: &str) -> String {
    format!(
        "[...document.querySelectorAll('tbody')].find(row => row.querySelector('.name').textContent === '{table}').innerText"
    )
}

async fn says(browser: &mut Browser, table: &str, text: &str) {
    browser.shows(&format!("{}.includes({})", row(table), Value::from(text))).await;
}

fn focused(browser: &mut Browser) -> String {
    browser.ask("document.activeElement.ariaLabel ?? document.activeElement.name").as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_what_tables_do_and_takes_orders_by_keyboard() {
    let stage = with_a_fourth(Stage::of()).up().await;
    let late = format!("{}-late", stage.topic);
    let daemon = stage.run_with(&[("OUTBOX__1__TOPIC", &late)]);
    let address = address(&daemon).await;
    let writing = stage.write(91).await;
    writing.more(100).await;

    // Given a daemon with a halted table, when the page is opened, then it stands first, with why and with its cure.
    let mut browser = Browser::start(1500, 900);
    browser.open(&address);
    browser.shows("document.body.dataset.live === 'live' && document.querySelectorAll('tbody').length === 4").await;
    browser.shows("document.getElementById('verdict').textContent.startsWith('1 table has halted')").await;
    let first = browser.ask("document.querySelector('tbody').innerText").to_string();
    assert!(
        first.contains(FOURTH) && first.contains(&late) && first.contains("cure: kafka-topics.sh --create"),
        "{first}"
    );
    browser.shows("document.getElementById('timeline').textContent.includes('relay halted')").await;

    assert!(first.contains("unknown"), "what waits for a table that is not read is not said to be nothing: {first}");
    let claimed = "[...document.querySelectorAll('.what')].filter(what => what.textContent === 'table claimed').length";
    browser.shows(&format!("{claimed} === 3")).await;

    // Given writers, then the numbers and the lines move.
    says(&mut browser, SECOND, "running").await;
    let events = "document.getElementById('rate-detail').textContent";
    let before = browser.ask(events);
    browser.shows(&format!("{events} !== {before}")).await;
    browser.shows("document.querySelectorAll('.spark.rate .line')[2].getAttribute('d').length > 20").await;

    // Given a keyboard, when a table is looked for and paused, then it is paused, for the reason that was written: as text.
    browser.press("/");
    browser.write("outbox2");
    browser.shows("document.querySelectorAll('tbody:not([hidden])').length === 1").await;
    browser.press("Tab");
    browser.press("Tab");
    assert_eq!(focused(&mut browser), format!("Pause {SECOND}"));
    browser.press("Enter");
    assert_eq!(focused(&mut browser), "reason");
    browser.write("<b>the topic</b> moves");
    browser.press("Enter");
    says(&mut browser, SECOND, "<b>the topic</b> moves").await;
    assert_eq!(status(&daemon, SECOND)["state"], "paused");
    browser.shows("!document.getElementById('order').open").await;
    assert_eq!(focused(&mut browser), format!("Resume {SECOND}"), "who was at a button stays at it");
    browser.shows("document.getElementById('said').textContent.includes('1 table is paused')").await;
    browser.press("Enter");
    browser.press("Enter");
    says(&mut browser, SECOND, "running").await;

    // Given the cause is not cured, when the table is retried, then the page says why not; and then it goes on.
    browser.ask("document.getElementById('filter').value = ''");
    browser.ask("document.getElementById('filter').dispatchEvent(new Event('input'))");
    let retry = format!("document.querySelector(`[aria-label='Retry {FOURTH}']`).click()");
    browser.ask(&retry);
    browser.press("Enter");
    browser.shows("document.getElementById('order-error').textContent.includes('(unfit)')").await;
    stage.create(&late).await;
    browser.press("Enter");
    says(&mut browser, FOURTH, "running").await;
    browser.shows("document.getElementById('verdict').dataset.tone === 'good'").await;

    // Given a phone, then nothing is wider than it.
    browser.size(360, 740, true);
    browser.shows("document.documentElement.scrollWidth <= 360 && innerWidth === 360").await;

    // A refusal is an answer like others, and the only thing that the console has to say.
    let faults = browser.faults(&address);
    assert!(faults.iter().all(|fault| fault.contains("/retry") && fault.contains("409")), "{faults:#?}");

    // Given a daemon that ends while somebody looks, then it ends at once, and the page says that there are no news.
    let journal = writing.stop().await;
    assert_eq!(daemon.terminate().await, Some(0));
    browser.shows("document.getElementById('live-text').textContent.startsWith('no news')").await;
    drop(journal);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_asks_for_the_token_and_another_name_for_this_machine_shows_nothing() {
    let stage = Stage::of().shards(2).up().await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "0123456789abcdef").unwrap();
    std::fs::set_permissions(token.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = stage.run_with(&[("ADMIN__TOKEN_FILE", token.path().to_str().unwrap())]);
    let address = address(&daemon).await;
    daemon.ready().await;
    let mut browser = Browser::start(1000, 800);
    browser.open(&address);
    browser.shows("document.querySelectorAll('tbody').length === 2").await;
    let press = |what: &str| format!("document.querySelector(`[aria-label='{what} {SECOND}']`).click()");

    // Given a wrong token, then the page says so and asks again; the right one is asked for once.
    browser.shows(&format!("document.querySelector(`[aria-label='Pause {SECOND}']`)")).await;
    browser.ask(&press("Pause"));
    browser.ask("document.querySelector('[name=token]').focus()");
    browser.write("0123456789abcdeF");
    browser.press("Enter");
    browser.shows("document.getElementById('order-error').textContent.includes('(token_wrong)')").await;
    assert_eq!(focused(&mut browser), "token");
    browser.write("0123456789abcdef");
    browser.press("Enter");
    says(&mut browser, SECOND, "paused").await;
    browser.shows("!document.getElementById('order').open").await;
    browser.ask(&press("Resume"));
    browser.shows("document.getElementById('order-token').hidden").await;
    browser.press("Enter");
    says(&mut browser, SECOND, "running").await;
    assert!(browser.ask("JSON.stringify([localStorage, sessionStorage, document.cookie])") == "[{},{},\"\"]");
    let faults = browser.faults(&address);
    assert!(faults.iter().all(|fault| fault.contains("401")), "{faults:#?}");

    // Given a name that somebody else's name server gives this machine, then a browser is shown nothing.
    browser.open(&address.replace("127.0.0.1", REBOUND));
    browser.shows("document.body.innerText.includes('foreign_host')").await;
    assert_eq!(daemon.terminate().await, Some(0));
}

/// Where the pictures of the documents are.
fn images() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Pictures in both colours.
fn pictures(browser: &mut Browser, name: &str) {
    for dark in [false, true] {
        browser.dark(dark);
        browser.ask("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))");
        browser.picture(&images().join(format!("status-{name}{}.png", if dark { "-dark" } else { "" })));
    }
    browser.dark(false);
}

/// Waits until lines are so long, in steps of two seconds.
async fn lines(browser: &mut Browser, length: usize) {
    for steps in (20..=length).step_by(20) {
        let long = format!("line => line.getAttribute('d').split('L').length > {steps}");
        browser.shows(&format!("[...document.querySelectorAll('.spark.rate .line')].every({long})")).await;
    }
}

/// As high as the page is.
fn whole(browser: &mut Browser, width: u32, phone: bool) {
    browser.size(width, 600, phone);
    let height = browser.ask("document.documentElement.scrollHeight").as_u64().unwrap();
    browser.size(width, u32::try_from(height).unwrap(), phone);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes the pictures of docs/images anew, in a few minutes: make pictures"]
async fn pictures_of_the_page() {
    // Four tables: all well; then one of them paused, and one whose topic takes nothing.
    let stage = with_a_fourth(Stage::of().topic("delivery").own_kafka());
    let stage = stage.set("RELAY__BATCH_BYTES", "16 KiB").set("RELAY__QUEUE_BYTES", "64 KiB");
    let stage = stage.set("KAFKA__PROPERTIES__TOPIC_METADATA_PROPAGATION_MAX_MS", "600000");
    let stage =
        stage.set("RELAY__IN_FLIGHT_BYTES", "64 KiB").set("OUTBOX__1__TOPIC", "cargo.{aggregatetype}").up().await;
    stage.create("cargo.delivery").await;
    let usual = "127.0.0.1:9640";
    let is_free = std::net::TcpListener::bind(usual).is_ok();
    let listens = if is_free { usual.to_owned() } else { format!("127.0.0.1:{}", free_port()) };
    let listen = [("ADMIN__LISTEN", listens.as_str())];
    let mut daemon = stage.run_with(&listen);
    let mut browser = Browser::start(1500, 800);
    let address = address(&daemon).await;
    let writing = stage.write(92).await;
    browser.open(&address);
    browser.shows("document.getElementById('verdict').dataset.tone === 'good'").await;
    lines(&mut browser, 60).await;
    whole(&mut browser, 1500, false);
    pictures(&mut browser, "four");
    browser.size(390, 844, true);
    pictures(&mut browser, "phone");
    drop(daemon);

    daemon = stage.run_with(&[listen[0], ("OUTBOX__1__TOPIC", "parcels.{aggregatetype}")]);
    let pause = ["pause", SECOND, "--reason", "the topic moves", "--by", "ann"];
    daemon.ready().await;
    let paused = stage.outboxd(&pause).env("OUTBOXD__ADMIN__LISTEN", listen[0].1).output().unwrap();
    assert!(paused.status.success(), "{}", String::from_utf8_lossy(&paused.stderr));
    until("the table is detached", async || status(&daemon, FOURTH)["state"] == "detached").await;
    browser.size(1500, 600, false);
    browser.open(&address);
    says(&mut browser, FOURTH, "detached").await;
    lines(&mut browser, 20).await;
    whole(&mut browser, 1500, false);
    pictures(&mut browser, "detached");
    drop(daemon);

    // A topic that is not there halts its table.
    daemon = stage.run_with(&[listen[0], ("OUTBOX__1__TOPIC", "parcels")]);
    until("the table is halted", async || status(&daemon, FOURTH)["state"] == "halted").await;
    browser.size(1500, 600, false);
    browser.open(&address);
    says(&mut browser, FOURTH, "halted").await;
    lines(&mut browser, 20).await;
    whole(&mut browser, 1500, false);
    pictures(&mut browser, "halted");
    browser.size(390, 844, true);
    pictures(&mut browser, "halted-phone");
    browser.size(1500, 800, false);
    browser.ask("document.querySelectorAll('.order')[2].click()");
    pictures(&mut browser, "pause");
    drop((daemon, browser));
    writing.stop().await;
    drop(stage);

    let stage = Stage::of().shards(64).up().await;
    let daemon = stage.run_with(&listen);
    let writing = stage.write(93).await;
    let mut browser = Browser::start(1500, 900);
    daemon.ready().await;
    browser.open(&address);
    browser.shows("document.querySelectorAll('tbody').length === 64").await;
    lines(&mut browser, 40).await;
    pictures(&mut browser, "many");
    writing.stop().await;
    assert_eq!(daemon.terminate().await, Some(0));
}

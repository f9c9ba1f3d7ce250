//! What happens, in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::relay::Relay;
use super::show::{Show, plain};
use super::stage::{Stage, TOPIC};
use super::standby::with_lost;
use super::{DemoError, DemoSettings, keep};
use crate::history::{
    Delivered, Isolation, Journal, Reader, ReaderSettings, Verdict, WriteError, Writer, WriterSettings,
};
use crate::terminal::text::count;

/// How long what was committed may take to arrive.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long the daemon is dead, at most.
const DEAD: Duration = Duration::from_secs(2);

type Writing = JoinHandle<Result<Journal, WriteError>>;

/// Plays the demo until its end or until `stop`, and gives whether the verdict is clean.
pub async fn run(settings: DemoSettings, stop: CancellationToken) -> Result<bool, DemoError> {
    let mut show = Show::new(stop.clone());
    let starting = if settings.failover {
        "starting private servers: two MySQL 9.7, one the replica of the other, Kafka 4.1"
    } else {
        "starting private servers: MySQL 9.7, Kafka 4.1"
    };
    let mut stage = show.during(starting, Stage::set(&settings.services, settings.failover)).await?;
    let replica = stage.standby().map(|standby| format!(" and, its replica, {}", standby.port())).unwrap_or_default();
    show.say(&format!("MySQL on port {}{replica}, Kafka at {}", stage.mysql_port(), stage.bootstrap_servers()))?;
    let mut relay = Relay::new(&stage, settings.daemon_arguments.clone())?;
    let verdict = play(&settings, &mut show, &mut stage, &mut relay, &stop).await?;
    drop(show);
    plain(&format!("\n{verdict}\n"))?;
    plain(&conclusion(&verdict))?;
    if settings.keep {
        keep::until_told(&stage, &relay, &stop).await?;
    }
    relay.stop().await?;
    Ok(is_clean(&verdict))
}

async fn play(
    settings: &DemoSettings,
    show: &mut Show,
    stage: &mut Stage,
    relay: &mut Relay,
    stop: &CancellationToken,
) -> Result<Verdict, DemoError> {
    let mut platform = WriterSettings::new(stage.opts(), Stage::outboxes(), 1);
    platform.rate = Some(settings.rate);
    let writer = Arc::new(Writer::new(platform)?);
    let creating = async {
        relay.migrate(stage).await?;
        stage.grant().await?;
        Ok(writer.prepare().await?)
    };
    show.during("creating four outbox tables", creating).await?;
    show.watch(relay.address(), writer.progress());
    let id = relay.start()?;
    show.during("starting the relay", relay.ready()).await?;
    show.say(&format!("`outboxd run` is process {id} and answers at {}", relay.address()))?;

    let writers_stop = stop.child_token();
    let mut writing: Writing = {
        let (writer, stop) = (Arc::clone(&writer), writers_stop.clone());
        tokio::spawn(async move { writer.run(stop).await })
    };
    let began = Instant::now();
    let until = settings.duration * 2 / 5;
    show.during("writers commit, the relay delivers", go_on(relay, &mut writing, until)).await?;
    if settings.failover {
        fail_over(show, stage, relay, &mut writing).await?;
    } else {
        let dead = DEAD.min(settings.duration / 5);
        kill(show, relay, &mut writing, id, dead).await?;
    }
    let rest = settings.duration.saturating_sub(began.elapsed());
    show.during("writers commit, the relay delivers", go_on(relay, &mut writing, rest)).await?;

    writers_stop.cancel();
    let finishing = async {
        let mut journal = finished(&mut writing).await?;
        writer.resolve(&mut journal).await?;
        Ok(journal)
    };
    let journal = show.during("writers finish their transactions", finishing).await?;
    let all =
        format!("reading topic {TOPIC} back until all {} events are there", count(journal.committed().count() as u64));
    let records = show.during(&all, read_back(stage, relay, &journal)).await?;
    let (journal, lost) = if settings.failover { with_lost(&journal, &records) } else { (journal, 0) };
    if lost > 0 {
        show.say(&format!(
            "{lost} transactions were relayed and died with the first MySQL before any COMMIT was answered"
        ))?;
    }
    let verdict = Verdict::of(&journal, &records);
    show.end("the end")?;
    Ok(verdict)
}

/// The relay dies, and comes back.
async fn kill(
    show: &mut Show,
    relay: &mut Relay,
    writing: &mut Writing,
    id: u32,
    dead: Duration,
) -> Result<(), DemoError> {
    relay.kill().await?;
    show.call_silence("killed");
    show.say(&format!("process {id} is killed with SIGKILL"))?;
    show.during("the relay is dead, writers go on", go_on(relay, writing, dead)).await?;
    let id = relay.start()?;
    show.call_silence("starting");
    show.say(&format!("`outboxd run` again, process {id}, from its saved positions"))?;
    Ok(())
}

/// The first MySQL dies, the second takes its place, and the relay finds it.
async fn fail_over(
    show: &mut Show,
    stage: &mut Stage,
    relay: &mut Relay,
    writing: &mut Writing,
) -> Result<(), DemoError> {
    stage.kill_primary()?;
    show.say(&format!("FAILOVER: MySQL on port {} is killed with SIGKILL", stage.mysql_port()))?;
    let Some(standby) = stage.standby() else { return Ok(()) };
    let promoted = async {
        tokio::select! {
            error = relay.ended() => Err(error),
            ended = finished(writing) => Err(ended.err().unwrap_or(DemoError::Interrupted)),
            promoted = standby.promote() => promoted,
        }
    };
    show.during("the replica applies what it has received", promoted).await?;
    show.say(&format!("FAILOVER: its replica on port {} is promoted, and the writers go there", standby.port()))?;
    let changed = async {
        tokio::select! {
            ended = finished(writing) => Err(ended.err().unwrap_or(DemoError::Interrupted)),
            changed = relay.says("server_changed") => changed,
        }
    };
    show.during("the relay looks for the new primary", changed).await?;
    show.say("FAILOVER: the relay has found it by itself, and goes on from its GTIDs")?;
    Ok(())
}

/// Lets everything go on for a while; an error if something ends that should not.
async fn go_on(relay: &mut Relay, writing: &mut Writing, time: Duration) -> Result<(), DemoError> {
    tokio::select! {
        error = relay.ended() => Err(error),
        ended = finished(writing) => Err(ended.err().unwrap_or(DemoError::Interrupted)),
        () = sleep(time) => Ok(()),
    }
}

async fn finished(writing: &mut Writing) -> Result<Journal, DemoError> {
    Ok(writing.await.map_err(|error| WriteError::Task(error.to_string()))??)
}

/// Reads until everything is there and nothing more is to come.
async fn read_back(stage: &Stage, relay: &mut Relay, journal: &Journal) -> Result<Vec<Delivered>, DemoError> {
    let mut reader = Reader::new(&ReaderSettings {
        bootstrap_servers: stage.bootstrap_servers(),
        topics: vec![TOPIC.to_owned()],
        isolation: Isolation::ReadCommitted,
    })?;
    reader.read_until(Instant::now() + PATIENCE, journal.has_arrived()).await?;
    relay.drained().await?;
    reader.read_to_end(Instant::now() + PATIENCE).await?;
    Ok(reader.into_records())
}

/// Nothing missing, from rolled-back transactions, out of order, altered or never written, and nothing undecided.
pub(super) fn is_clean(verdict: &Verdict) -> bool {
    verdict.is_clean() && verdict.unresolved == 0 && verdict.unfinished == 0
}

/// The verdict in words.
pub(super) fn conclusion(verdict: &Verdict) -> String {
    let mut text = if is_clean(verdict) {
        "Every committed event arrived, in order, and nothing of what was rolled back.".to_owned()
    } else {
        "NOT as promised: see above.".to_owned()
    };
    if verdict.total.duplicates > 0 {
        text.push_str(
            "\nDuplicates are allowed: delivery is at least once, and what no saved position\ncovers at a kill is \
             published again. Consumers know them by the header `id`.",
        );
    }
    text
}

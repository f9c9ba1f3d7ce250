//! The servers stay up, for a look around.

use std::io::BufRead;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::DemoError;
use super::relay::Relay;
use super::show::plain;
use super::stage::{Stage, TOPIC};
use super::standby::Standby;

/// Says how to connect, and waits for Enter or `stop`.
pub(super) async fn until_told(stage: &Stage, relay: &Relay, stop: &CancellationToken) -> Result<(), DemoError> {
    let (mysql, kafka) = (stage.standby().map_or(stage.mysql_port(), Standby::port), stage.bootstrap_servers());
    let (address, log) = (relay.address(), relay.log());
    plain(&format!(
        "
Everything stays up until Ctrl-C or Enter.

  mysql --host=127.0.0.1 --port={mysql} --user=admin --password=admin delivery
  kafka-console-consumer.sh --bootstrap-server {kafka} --topic {TOPIC} --from-beginning --property print.key=true
  kcat -b {kafka} -t {TOPIC} -C -f '%k %h %s\\n'
  outboxd status --address {address} --watch
  curl http://{address}/metrics
  less {log}",
        log = log.display()
    ))?;
    tokio::select! {
        () = enter() => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}

/// Waits for a line on standard input; for ever, when there is none to come.
async fn enter() {
    let (sender, receiver) = oneshot::channel();
    // A thread of its own: nothing waits for it when the demo ends another way.
    std::thread::spawn(move || {
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            let _ = sender.send(());
        }
    });
    if receiver.await.is_err() {
        std::future::pending::<()>().await;
    }
}

//! The admin listener over HTTPS: what it shows, whom it lets change something, and that certificates are renewed under way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Output;
use std::time::Duration;

use crate::certificates::{Authority, Signed};
use crate::stage::{Stage, free_port, until};

const TABLE: &str = "delivery.delivery-outbox1";

/// A stage with authorities of the daemon and of operators.
struct Bench {
    stage: Stage,
    servers: Authority,
    operators: Authority,
    own: Signed,
    port: u16,
}

impl Bench {
    async fn up() -> Self {
        let (servers, operators, port) = (Authority::new(), Authority::new(), free_port());
        let own = servers.sign("localhost", None);
        let file = |path: &std::path::Path| path.display().to_string();
        let setup = Stage::of().shards(1).set("ADMIN__LISTEN", &format!("127.0.0.1:{port}"));
        let setup = setup.set("ADMIN__TLS__CERT", &file(&own.cert)).set("ADMIN__TLS__KEY", &file(&own.key));
        let stage = setup.set("ADMIN__TLS__CLIENT_CA", &file(&operators.file())).up().await;
        Self { stage, servers, operators, own, port }
    }

    /// A command about the daemon at its name, with what it trusts and shows.
    fn at(&self, arguments: &[&str], ca: &Authority, shown: Option<&Signed>) -> Output {
        let mut command = self.stage.outboxd(arguments);
        command.arg("--address").arg(format!("https://localhost:{}", self.port)).arg("--ca").arg(ca.file());
        if let Some(Signed { cert, key }) = shown {
            command.arg("--client-cert").arg(cert).arg("--client-key").arg(key);
        }
        command.output().unwrap()
    }

    async fn is_ready(&self) {
        let ready = async || self.stage.outboxd(&["health"]).output().unwrap().status.success();
        until("the daemon says that it is ready", ready).await;
    }
}

#[track_caller]
fn error(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Given a listener with a certificate and an authority of operators, then everything is said over HTTPS, to whoever trusts its
/// certificate, and changes are made for those who show one of theirs, under their name.
#[tokio::test(flavor = "multi_thread")]
async fn who_shows_a_certificate_may_change_and_who_does_not_may_read() {
    let bench = Bench::up().await;
    let daemon = bench.stage.run();
    bench.is_ready().await;
    let ann = bench.operators.sign("ann", None);
    let stranger = Authority::new();
    let mallory = stranger.sign("ann", None);

    assert!(bench.at(&["health"], &bench.servers, None).status.success());
    let nobody = error(&bench.at(&["pause", TABLE], &bench.servers, None));
    assert!(nobody.contains("certificate_missing"), "{nobody}");
    let refused = error(&bench.at(&["pause", TABLE], &bench.servers, Some(&mallory)));
    assert!(refused.contains("no daemon answers at https://localhost"), "{refused}");
    let distrusted = error(&bench.at(&["health"], &stranger, None));
    assert!(distrusted.contains("certificate"), "{distrusted}");
    let elsewhere = bench.stage.outboxd(&["health", "--address", &format!("127.0.0.1:{}", bench.port), "--ca"]);
    let elsewhere = { elsewhere }.arg(bench.servers.file()).output().unwrap();
    assert!(error(&elsewhere).contains("no daemon answers"), "the certificate is for another name");
    let plain = ureq::get(format!("http://127.0.0.1:{}/livez", bench.port)).call();
    assert!(plain.is_err(), "nothing is said in the clear");

    let paused = bench.at(&["pause", TABLE], &bench.servers, Some(&ann));
    assert!(paused.status.success(), "{}", String::from_utf8_lossy(&paused.stderr));
    let audit = daemon.log().lines().find(|line| line.contains("action=\"pause\"")).unwrap().to_owned();
    assert!(audit.contains("certificate of \"ann\""), "{audit}");
    // On its own machine, by its own configuration, reading needs no more.
    let status = bench.stage.outboxd(&["status"]).output().unwrap();
    let said = String::from_utf8_lossy(&status.stderr);
    assert!(status.status.success() && !said.contains("position store"), "{said}");
    assert_eq!(daemon.terminate().await, Some(0));
}

/// Given a daemon at work, when its certificate is replaced, then the next connection is shown the new one; a file that is half
/// written ends nothing; and somebody who connects and says nothing holds up nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_under_way_and_silence_holds_nobody_up() {
    let bench = Bench::up().await;
    let daemon = bench.stage.run();
    bench.is_ready().await;
    let silent = |_| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
        socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], bench.port)).into()).unwrap();
        TcpStream::from(socket)
    };
    // As many as one address may have.
    let mut silent: Vec<_> = (0..64).map(silent).collect();
    let renewed = Authority::new();
    let Signed { cert, key } = renewed.sign("localhost", None);

    std::fs::copy(&cert, &bench.own.cert).unwrap();
    assert!(bench.at(&["health"], &bench.servers, None).status.success(), "the key is not yet the new one");
    daemon.logs("admin_tls_not_renewed").await;
    std::fs::copy(&key, &bench.own.key).unwrap();
    assert!(bench.at(&["health"], &renewed, None).status.success());
    error(&bench.at(&["health"], &bench.servers, None));

    // The silent ones are dropped in the end.
    for stream in &mut silent {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let _ = stream.write(b"");
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
    }
    assert_eq!(daemon.terminate().await, Some(0));
}

//! The connection that the log comes over: who logs in, and how.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Opts, OptsBuilder, SslOpts};
use outboxd::mysql::connect::Endpoint;

use super::shop::{MARIADBS, MYSQL, Shop};

const OUTBOX: &str = "id BIGINT UNSIGNED PRIMARY KEY, payload LONGTEXT";
const COLUMNS: [&str; 2] = ["id", "payload"];

fn as_user(opts: &Opts, user: &str, password: &str) -> OptsBuilder {
    OptsBuilder::from_opts(opts.clone()).user(Some(user)).pass(Some(password))
}

async fn grant(shop: &mut Shop, user: &str, identified: &str) {
    shop.run(&[
        &format!("CREATE USER '{user}'@'%' {identified}"),
        &format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO '{user}'@'%'"),
    ])
    .await;
}

async fn variable(shop: &mut Shop, name: &str) -> String {
    let value: Option<String> = shop.conn.query_first(format!("SELECT @@{name}")).await.unwrap();
    value.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn given_caching_sha2_when_logging_in_with_and_without_tls_and_by_socket_then_the_log_is_read() {
    let mut shop = Shop::open(MYSQL, "logins", OUTBOX, &COLUMNS).await;
    let plain = shop.opts().clone();
    let (data, socket) = (variable(&mut shop, "datadir").await, variable(&mut shop, "socket").await);
    let trusting = SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true);
    let authority = std::path::PathBuf::from(format!("{data}/ca.pem"));
    let verified = SslOpts::default()
        .with_root_certs(vec![authority.into()])
        .with_disable_built_in_roots(true)
        .with_danger_skip_domain_validation(true);
    let unknown = SslOpts::default().with_danger_skip_domain_validation(true);
    for (user, password) in [("sha2", "a password longer than one block of twenty bytes"), ("nopassword", "")] {
        grant(&mut shop, user, &format!("IDENTIFIED WITH caching_sha2_password BY '{password}'")).await;
        let options: [(&str, OptsBuilder); 5] = [
            ("by public key", as_user(&plain, user, password)),
            ("by what the server remembers", as_user(&plain, user, password)),
            ("over TLS", as_user(&plain, user, password).ssl_opts(trusting.clone())),
            ("over verified TLS", as_user(&plain, user, password).ssl_opts(verified.clone())),
            ("by socket", as_user(&plain, user, password).socket(Some(socket.clone()))),
        ];
        for (how, options) in options {
            // Whole logins, not those that the server remembers; the second is to be one of these.
            if how != "by what the server remembers" {
                shop.run(&["FLUSH PRIVILEGES"]).await;
            }
            let heard = shop.hear_as(options).await;
            assert!(heard.is_clean(), "{user} {how}: {:?}", heard.error);
        }
        let refused = shop.hear_as(as_user(&plain, user, "wrong")).await.error.unwrap();
        assert!(refused.starts_with("access_denied"), "{refused}");
        let refused = shop.hear_as(as_user(&plain, user, password).ssl_opts(unknown.clone())).await.error.unwrap();
        assert!(refused.contains("certificate"), "{refused}");
    }
    shop.run(&["DROP USER sha2, nopassword"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn given_mysql_native_password_when_logging_in_then_the_log_is_read() {
    for server in MARIADBS {
        let mut shop = Shop::open(server, "logins", OUTBOX, &COLUMNS).await;
        let plain = shop.opts().clone();
        grant(&mut shop, "native", "IDENTIFIED VIA mysql_native_password USING PASSWORD('secret')").await;
        let heard = shop.hear_as(as_user(&plain, "native", "secret")).await;
        assert!(heard.is_clean(), "{server}: {:?}", heard.error);
        let refused = shop.hear_as(as_user(&plain, "native", "wrong")).await.error.unwrap();
        assert!(refused.starts_with("access_denied"), "{server}: {refused}");
        let trusting =
            SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true);
        let heard = shop.hear_as(as_user(&plain, "native", "secret").ssl_opts(trusting)).await;
        let offers = variable(&mut shop, "have_ssl").await == "YES";
        assert_eq!(heard.error.is_none(), offers, "{server}: {:?}", heard.error);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_the_plugins_of_mariadb_when_logging_in_then_the_log_is_read() {
    for (server, plugin) in [(MARIADBS[0], "ed25519"), (MARIADBS[1], "ed25519"), (MARIADBS[1], "parsec")] {
        let mut shop = Shop::open(server, &format!("by_{plugin}"), OUTBOX, &COLUMNS).await;
        let plain = shop.opts().clone();
        shop.run(&[&format!("INSTALL SONAME 'auth_{plugin}'")]).await;
        grant(&mut shop, plugin, &format!("IDENTIFIED VIA {plugin} USING PASSWORD('secret')")).await;
        let heard = shop.hear_as(as_user(&plain, plugin, "secret")).await;
        assert!(heard.is_clean(), "{server}: {plugin}: {:?}", heard.error);
        let refused = shop.hear_as(as_user(&plain, plugin, "wrong")).await.error.unwrap();
        assert!(refused.starts_with("access_denied"), "{server}: {plugin}: {refused}");
        shop.run(&[&format!("DROP USER {plugin}")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_plugin_that_is_not_spoken_when_logging_in_then_it_is_named() {
    let mut shop = Shop::open(MYSQL, "not_spoken", OUTBOX, &COLUMNS).await;
    let plain = shop.opts().clone();
    grant(&mut shop, "sha256", "IDENTIFIED WITH sha256_password BY 'secret'").await;
    let refused = shop.hear_as(as_user(&plain, "sha256", "secret")).await.error.unwrap();
    assert!(refused.starts_with("log_refused") && refused.contains("sha256_password"), "{refused}");
    shop.run(&["DROP USER sha256"]).await;
}

/// Given an account whose plugin signs random bytes of the server, of which one in 256 ends with a zero, then no login is denied.
#[tokio::test(flavor = "multi_thread")]
async fn given_many_logins_that_are_signed_then_none_is_denied() {
    let mut shop = Shop::open(MARIADBS[1], "signed_often", OUTBOX, &COLUMNS).await;
    let plain = shop.opts().clone();
    shop.run(&["INSTALL SONAME 'auth_ed25519'"]).await;
    grant(&mut shop, "often", "IDENTIFIED VIA ed25519 USING PASSWORD('secret')").await;
    let endpoint = Endpoint::new(as_user(&plain, "often", "secret").into(), Duration::from_secs(10));
    for login in 0..1_000 {
        let conn = endpoint.connect().await.unwrap_or_else(|error| panic!("{login}: {error}"));
        conn.disconnect().await.unwrap();
    }
    shop.run(&["DROP USER often"]).await;
}

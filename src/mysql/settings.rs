//! Which MySQL server the binlog is read from, and where positions are kept.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mysql_async::Opts;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use super::servers::Role;
use super::tls::TlsSettings;
use crate::credentials;

/// What stands for a secret wherever settings are shown.
const HIDDEN: &str = "***";

/// The address of a server: `mysql://user@host:port`. May hold a password, which is never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ServerUrl(Zeroizing<String>);

impl ServerUrl {
    /// A URL from its text, which is not looked at yet.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into().into())
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the driver makes of the URL.
    pub fn options(&self) -> Result<Opts, UrlError> {
        let options = Opts::from_url(&self.0).map_err(|error| match error {
            // These two name a parameter; the others might repeat what stands before the host.
            mysql_async::UrlError::UnknownParameter { param }
            | mysql_async::UrlError::InvalidParamValue { param, .. } => UrlError::Parameter(param),
            _ => UrlError::Form,
        })?;
        if options.user().is_none_or(str::is_empty) {
            return Err(UrlError::NoUser);
        }
        let of_tls = ["require_ssl", "verify_ca", "verify_identity", "built_in_roots"];
        let parameters = self.0.split_once('?').map_or("", |(_, parameters)| parameters).split('&');
        let named = parameters.filter_map(|parameter| parameter.split('=').next());
        match named.into_iter().find_map(|name| of_tls.into_iter().find(|known| *known == name)) {
            Some(parameter) => Err(UrlError::Tls(parameter)),
            None => Ok(options),
        }
    }

    /// The password within the URL, if the URL can be read and has one.
    pub fn password(&self) -> Option<SecretString> {
        Opts::from_url(&self.0).ok()?.pass().filter(|password| !password.is_empty()).map(SecretString::from)
    }
}

impl From<&str> for ServerUrl {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// The URL without its password.
impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.find("://").map_or(("", self.0.as_str()), |at| self.0.split_at(at + 3));
        // Up to the last `@`, because people forget to escape those in their passwords.
        let (user, host) = rest.rfind('@').map_or(("", rest), |at| rest.split_at(at));
        let port_or_password = host.split_once(':').map(|(_, port)| port);
        match (user.split_once(':'), port_or_password) {
            (Some((user, _)), _) => write!(f, "{scheme}{user}:{HIDDEN}{host}"),
            (None, Some(port)) if user.is_empty() && !port.starts_with(|c: char| c.is_ascii_digit()) => {
                write!(f, "{scheme}{HIDDEN}")
            }
            _ => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The URL without its password.
impl Serialize for ServerUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a URL cannot be used; repeats nothing of what might be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not `mysql://user@host:port`.
    #[error("not of the form mysql://user@host:port")]
    Form,
    /// Nobody to log in as.
    #[error("no user before the host")]
    NoUser,
    /// A parameter after `?` that the driver does not take.
    #[error("the parameter `{0}` is not known or its value not valid")]
    Parameter(String),
    /// A parameter for what has keys of its own.
    #[error("instead of the parameter `{0}`, set mysql.tls.mode")]
    Tls(&'static str),
}

/// A password file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the password file {} cannot be read: {cause}", path.display())]
pub struct PasswordError {
    path: PathBuf,
    #[source]
    cause: std::io::Error,
}

/// The server whose binlog is relayed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct MysqlSettings {
    /// `mysql://user@host:port`, or `mysql://user@localhost?socket=/path`; required.
    pub url: ServerUrl,
    /// Further servers that may be read from, `host` or `host:port`, with the login of `url`; tried in this order after it.
    pub addresses: Vec<String>,
    /// What a server must be to be read from; when not set, `primary` with several addresses and `any` with one.
    pub role: Option<Role>,
    /// What becomes of a table that has relayed transactions which the server lost in a failover.
    pub on_lost_transactions: OnLost,
    /// What becomes of a position that is a file and an offset when another server answers.
    pub on_new_server: OnNewServer,
    /// The user's password; goes before `password_file`, which goes before a password in the URL.
    #[serde(serialize_with = "hidden")]
    pub password: Option<SecretString>,
    /// A file with the password; one line end after it is ignored.
    pub password_file: Option<PathBuf>,
    /// The replica id the daemon shows to the server, different from every other replica's; random when not set.
    pub server_id: Option<u32>,
    /// How long connecting may take, or the answer to a request.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How often the server says that it is there when the binlog has nothing new.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// After how long without event or heartbeat the connection counts as lost; longer than `heartbeat`.
    #[serde(with = "humantime_serde")]
    pub silence_deadline: Duration,
    /// A position that is nearer than this to being purged is warned of.
    #[serde(with = "humantime_serde")]
    pub purge_warning: Duration,
    /// TLS to this server and to that of the positions.
    pub tls: TlsSettings,
}

impl Default for MysqlSettings {
    fn default() -> Self {
        Self {
            url: ServerUrl::default(),
            addresses: Vec::new(),
            role: None,
            on_lost_transactions: OnLost::Report,
            on_new_server: OnNewServer::Halt,
            password: None,
            password_file: None,
            server_id: None,
            connect_timeout: Duration::from_secs(10),
            heartbeat: Duration::from_secs(2),
            silence_deadline: Duration::from_secs(8),
            purge_warning: Duration::from_hours(12),
            tls: TlsSettings::default(),
        }
    }
}

/// What to do when a failover has lost transactions that were relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLost {
    /// Say which, and go on.
    Report,
    /// Halt.
    Halt,
}

/// What to do with a file and an offset of another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNewServer {
    /// Halt: they mean nothing there.
    Halt,
    /// Go on with them: the server is a copy of the one before, its log included.
    Continue,
}

/// `host` or `host:port`, an IPv6 address in brackets; with the port that is used when none is given, if it is one.
pub(crate) fn address(text: &str, port: u16) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, number)) if !number.ends_with(']') => (host, number.parse().ok()?),
        _ => (text, port),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let fits = !host.is_empty() && (bare.is_some() || !host.contains([':', '/', '@', ',', ' ', '[', ']']));
    fits.then(|| (bare.unwrap_or(host).to_owned(), port))
}

impl MysqlSettings {
    /// The role in force.
    pub fn role(&self) -> Role {
        self.role.unwrap_or(if self.addresses.is_empty() { Role::Any } else { Role::Primary })
    }

    /// What the driver needs for each server: that of `url` as [`Login::options`] gives it, and its likes.
    pub fn alternatives(&self, first: &Opts) -> Vec<Opts> {
        let of = |(host, port): (String, u16)| {
            mysql_async::OptsBuilder::from_opts(first.clone()).ip_or_hostname(host).tcp_port(port)
        };
        let all = self.addresses.iter().filter_map(|text| address(text, first.tcp_port()));
        all.map(|address| of(address).into()).collect()
    }

    /// How the server is logged in to.
    pub fn login(&self) -> Login<'_> {
        Login { url: &self.url, password: self.password.as_ref(), file: self.password_file.as_deref() }
    }

    /// The configured replica id, or a new random one from 1,073,741,824 up, where hand-given ids are rare.
    ///
    /// Call once: every connection of a daemon must show the same.
    pub fn resolve_server_id(&self) -> u32 {
        self.server_id.unwrap_or_else(Self::fresh_server_id)
    }

    /// A replica id that nobody is likely to have.
    pub fn fresh_server_id() -> u32 {
        fastrand::u32(0x4000_0000..=0x7fff_ffff)
    }
}

/// How a server is logged in to.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    url: &'a ServerUrl,
    password: Option<&'a SecretString>,
    file: Option<&'a Path>,
}

impl Login<'_> {
    /// The password: the one that is given, else what the file holds, else the URL's.
    pub fn password(self) -> Result<Option<SecretString>, PasswordError> {
        match (self.password, self.file) {
            (Some(password), _) => Ok(Some(password.clone())),
            (None, Some(file)) => read_password(file).map(Some),
            (None, None) => Ok(self.url.password()),
        }
    }

    /// The file whose password is used, if it is one's: so it can change meanwhile.
    pub fn password_in_file(self) -> Option<PathBuf> {
        self.file.filter(|_| self.password.is_none()).map(Path::to_owned)
    }

    /// What the driver needs to connect: the URL with the password.
    ///
    /// A URL that [`ServerUrl::options`] refuses gives `None`; a validated configuration holds none.
    pub fn options(self) -> Result<Option<Opts>, PasswordError> {
        let password = self.password()?;
        Ok(self.url.options().ok().map(|options| {
            mysql_async::OptsBuilder::from_opts(options)
                .pass(password.map(|password| password.expose_secret().to_owned()))
                .into()
        }))
    }
}

pub(super) fn read_password(path: &Path) -> Result<SecretString, PasswordError> {
    credentials::secret(path).map_err(|cause| PasswordError { path: path.to_owned(), cause })
}

#[allow(clippy::ref_option, reason = "serde asks for a reference")]
pub(super) fn hidden<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| HIDDEN).serialize(serializer)
}

/// What keeps positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Keeper {
    /// A table of a MySQL server.
    Mysql,
    /// A compacted topic.
    Kafka,
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mysql => "mysql",
            Self::Kafka => "kafka",
        })
    }
}

/// Where positions are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct PositionsSettings {
    /// In a table or in a topic; when not set, the topic for exactly once and the table otherwise.
    pub store: Option<Keeper>,
    /// The compacted topic of positions.
    pub topic: String,
    /// Another server than the one whose binlog is read: `mysql://user@host:port`.
    pub url: Option<ServerUrl>,
    /// The password there; goes before `password_file`, which goes before a password in the URL.
    #[serde(serialize_with = "hidden")]
    pub password: Option<SecretString>,
    /// A file with that password; one line end after it is ignored.
    pub password_file: Option<PathBuf>,
    /// The schema of the position table.
    pub schema: String,
    /// The name of the position table.
    pub table: String,
}

impl PositionsSettings {
    /// How the server of `url` is logged in to, if there is one.
    pub fn login(&self) -> Option<Login<'_>> {
        let url = self.url.as_ref()?;
        Some(Login { url, password: self.password.as_ref(), file: self.password_file.as_deref() })
    }
}

impl Default for PositionsSettings {
    fn default() -> Self {
        Self {
            store: None,
            topic: "outboxd.positions".into(),
            url: None,
            password: None,
            password_file: None,
            schema: "outboxd".into(),
            table: "outboxd_positions".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(settings: &MysqlSettings) -> Option<String> {
        settings.login().password().unwrap().map(|password| password.expose_secret().to_owned())
    }

    #[test]
    fn given_all_three_when_resolved_then_password_goes_before_file_before_url() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from file\r\n").unwrap();
        let mut settings = MysqlSettings { url: "mysql://u:from%20url@h".into(), ..MysqlSettings::default() };
        assert_eq!(exposed(&settings).as_deref(), Some("from url"));
        settings.password_file = Some(file.path().to_owned());
        assert_eq!(exposed(&settings).as_deref(), Some("from file"));
        settings.password = Some("direct".into());
        assert_eq!(exposed(&settings).as_deref(), Some("direct"));
        assert_eq!(settings.login().options().unwrap().unwrap().pass(), Some("direct"));
    }

    #[test]
    fn given_addresses_when_read_then_host_and_port_are_told_apart() {
        for (text, read) in [
            ("db2", Some(("db2", 3306))),
            ("db2:3307", Some(("db2", 3307))),
            ("[::1]:3307", Some(("::1", 3307))),
            ("[fe80::1]", Some(("fe80::1", 3306))),
            ("", None),
            (":3306", None),
            ("db2:x", None),
            ("::1", None),
            ("db2:3306,db3", None),
            ("u@db2", None),
        ] {
            assert_eq!(address(text, 3306), read.map(|(host, port)| (host.to_owned(), port)), "{text}");
        }
        let addresses = vec!["b".to_owned(), "c:3".to_owned()];
        let settings = MysqlSettings { url: "mysql://u:p@a:7".into(), addresses, ..MysqlSettings::default() };
        let first = settings.login().options().unwrap().unwrap();
        let others = settings.alternatives(&first);
        let shown: Vec<_> = others.iter().map(|o| (o.ip_or_hostname(), o.tcp_port(), o.user(), o.pass())).collect();
        assert_eq!(shown, [("b", 7, Some("u"), Some("p")), ("c", 3, Some("u"), Some("p"))]);
        assert_eq!((settings.role(), MysqlSettings::default().role()), (Role::Primary, Role::Any));
    }

    #[test]
    fn given_a_missing_file_when_resolved_then_the_path_is_named() {
        let settings = MysqlSettings { password_file: Some("/none/such".into()), ..MysqlSettings::default() };
        assert!(settings.login().password().unwrap_err().to_string().contains("/none/such"));
    }

    #[test]
    fn given_a_password_in_a_url_when_shown_then_it_is_hidden() {
        for (url, shown) in [
            ("mysql://u:secret@h:3306", "mysql://u:***@h:3306"),
            ("mysql://u:se@cr/et?@h/db", "mysql://u:***@h/db"),
            ("u:secret@h", "u:***@h"),
            ("mysql://u:secret", "mysql://***"),
            ("mysql://u@h:3306", "mysql://u@h:3306"),
            ("mysql://h:3306", "mysql://h:3306"),
        ] {
            assert_eq!(ServerUrl::from(url).to_string(), shown);
            assert_eq!(format!("{:?}", ServerUrl::from(url)), shown);
        }
    }

    #[test]
    fn given_urls_that_are_none_when_read_then_the_reason_is_told() {
        assert_eq!(ServerUrl::from("postgres://u@h").options().unwrap_err(), UrlError::Form);
        assert_eq!(ServerUrl::from("mysql://h:3306").options().unwrap_err(), UrlError::NoUser);
        assert_eq!(ServerUrl::from("mysql://u@h?x=1").options().unwrap_err(), UrlError::Parameter("x".into()));
        let tls = ServerUrl::from("mysql://u@h?prefer_socket=false&require_ssl=true");
        assert_eq!(tls.options().unwrap_err(), UrlError::Tls("require_ssl"));
        assert_eq!(ServerUrl::from("mysql://u@h-1").options().unwrap().tcp_port(), 3306);
        let socket = ServerUrl::from("mysql://u@localhost?socket=/run/mysqld/mysqld.sock").options().unwrap();
        assert_eq!(socket.socket(), Some("/run/mysqld/mysqld.sock"));
    }

    #[test]
    fn given_no_server_id_when_resolved_then_it_is_high() {
        assert!(MysqlSettings::default().resolve_server_id() >= 0x4000_0000);
        assert_eq!(MysqlSettings { server_id: Some(7), ..MysqlSettings::default() }.resolve_server_id(), 7);
    }
}

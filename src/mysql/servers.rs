//! Which of several servers is used.
//!
//! Promise: everything that a daemon asks of its source it asks of one server, for as long as that one answers and has the
//! role that is wanted; another is taken in the order of the list, and never one without the role. How long to wait after
//! a round in which nobody would do is the caller's matter: a round fails as one connection does.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::connect::{Endpoint, Flavor};
use super::error::is_transient;

/// What a server must be to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// One that can be written to: neither `read_only` nor `super_read_only`.
    Primary,
    /// One that is read-only.
    Replica,
    /// The first that answers.
    Any,
}

impl Role {
    fn takes(self, read_only: bool) -> bool {
        match self {
            Self::Primary => !read_only,
            Self::Replica => read_only,
            Self::Any => true,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Any => "any",
        })
    }
}

/// The servers that may be used, in order; never none. Clones share which one is.
#[derive(Clone)]
pub struct Servers {
    shared: Arc<Shared>,
}

struct Shared {
    all: Vec<Endpoint>,
    role: Role,
    /// The one in use.
    chosen: AtomicUsize,
    /// Who answered last.
    met: Mutex<Option<Identity>>,
}

/// Who a server is, whatever its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// `server_uuid`, or the server id of `MariaDB`.
    pub(super) name: String,
    pub(super) read_only: bool,
}

impl Identity {
    pub(super) async fn of(conn: &mut Conn) -> Result<Self, Error> {
        let name = if Flavor::of(conn).await?.mariadb { "server_id" } else { "server_uuid" };
        let row: Option<(String, String)> =
            conn.query_first(format!("SELECT CAST(@@GLOBAL.{name} AS CHAR), CAST(@@GLOBAL.read_only AS CHAR)")).await?;
        let (name, read_only) = row.unwrap_or_default();
        Ok(Self { name, read_only: !matches!(read_only.as_str(), "0" | "OFF") })
    }
}

impl From<Endpoint> for Servers {
    /// One server, whatever its role.
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint, Vec::new(), Role::Any)
    }
}

impl fmt::Display for Servers {
    /// The one in use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.in_use().fmt(f)
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.shared.all).finish()
    }
}

impl Servers {
    /// These, in this order, as far as they have the role.
    pub fn new(first: Endpoint, others: Vec<Endpoint>, role: Role) -> Self {
        let all = std::iter::once(first).chain(others).collect();
        Self { shared: Arc::new(Shared { all, role, chosen: AtomicUsize::new(0), met: Mutex::default() }) }
    }

    /// The place of the one in use.
    pub(super) fn chosen(&self) -> usize {
        self.shared.chosen.load(Relaxed)
    }

    /// The one in use.
    pub fn in_use(&self) -> &Endpoint {
        &self.shared.all[self.chosen()]
    }

    /// A connection to the server in use, or to the first of the others that will do.
    pub async fn connect(&self) -> Result<Conn, Error> {
        self.choose().await.map(|(conn, _)| conn)
    }

    /// The same, and where it leads, for a second connection to the same server.
    pub(super) async fn choose(&self) -> Result<(Conn, &Endpoint), Error> {
        let Shared { all, role, chosen, .. } = &*self.shared;
        let current = self.chosen();
        let mut refusals = Vec::new();
        for at in std::iter::once(current).chain((0..all.len()).filter(|at| *at != current)) {
            let endpoint = &all[at];
            match self.enter(endpoint).await {
                Ok(Ok(conn)) => {
                    if at != current {
                        info!(server = %endpoint, instead_of = %all[current], %role, "server_chosen");
                        chosen.store(at, Relaxed);
                    }
                    return Ok((conn, endpoint));
                }
                // With one server its own error says what to do.
                Err(error) if all.len() == 1 => return Err(error),
                // A login that is refused is refused tomorrow; the others may still do.
                Err(error) if !is_transient(&error) => {
                    warn!(server = %endpoint, %error, "server_refuses");
                    refusals.push(format!("{endpoint}: {error}"));
                }
                Err(error) => refusals.push(format!("{endpoint}: {error}")),
                Ok(Err(why)) => refusals.push(format!("{endpoint} {why}")),
            }
        }
        let reason = format!("no server with the role {role}: {}", refusals.join("; "));
        Err(Error::Io(std::io::Error::new(std::io::ErrorKind::NotConnected, reason).into()))
    }

    /// Connects to one, if it has the role; otherwise gives what it is instead.
    async fn enter(&self, endpoint: &Endpoint) -> Result<Result<Conn, &'static str>, Error> {
        let mut conn = endpoint.connect().await?;
        if self.shared.role == Role::Any {
            return Ok(Ok(conn));
        }
        let Identity { read_only, .. } = endpoint.patiently(Identity::of(&mut conn)).await??;
        if self.shared.role.takes(read_only) {
            return Ok(Ok(conn));
        }
        let _ = endpoint.patiently(conn.disconnect()).await;
        Ok(Err(if read_only { "is read-only" } else { "is not read-only" }))
    }

    /// Notes who answers, and says so when it is another than before.
    pub(super) fn meet(&self, identity: &Identity) {
        let mut met = self.shared.met.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = met.as_ref().filter(|before| before.name != identity.name) {
            info!(old = %before.name, new = %identity.name, server = %self, "server_changed");
        }
        *met = Some(identity.clone());
    }

    /// Whether a server can lose the role that is wanted while it is being read from, to another one.
    pub(super) fn may_change(&self) -> bool {
        self.shared.role == Role::Primary
    }

    /// Why the server that is being read from should be left: it is a primary no more, and there is another one. `None` as
    /// long as nothing better is known. Asked by name each time, because a name may move.
    pub(super) async fn better_than(&self, reading: &Identity) -> Option<String> {
        let Shared { all, chosen, .. } = &*self.shared;
        let current = self.chosen();
        // One that does not answer may still send its log; its silence would be noticed.
        let now = self.ask(&all[current]).await.ok()?;
        if now.name == reading.name && !now.read_only {
            return None;
        }
        for (at, endpoint) in all.iter().enumerate() {
            if let Ok(identity) = self.ask(endpoint).await
                && identity.name != reading.name
                && !identity.read_only
            {
                chosen.store(at, Relaxed);
                return Some(format!("{} is no longer the primary, {} is", all[current], endpoint));
            }
        }
        None
    }

    async fn ask(&self, endpoint: &Endpoint) -> Result<Identity, Error> {
        let mut conn = endpoint.connect().await?;
        let identity = endpoint.patiently(Identity::of(&mut conn)).await?;
        let _ = endpoint.patiently(conn.disconnect()).await;
        identity
    }

    /// Waits for an answer as long as connecting may take: a server whose machine is gone never says so.
    pub async fn patiently<T>(&self, answer: impl Future<Output = T>) -> Result<T, Error> {
        self.in_use().patiently(answer).await
    }
}

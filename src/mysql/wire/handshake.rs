//! Logging in: greeting, TLS, and the authentication plugins that servers use.

use mysql_async::{DriverError, Error, Opts};
use mysql_common::constants::CapabilityFlags;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize;
use openssl::error::ErrorStack;
use openssl::rsa::{Padding, Rsa};

use super::packets::Packets;
use super::{head, lost, tls};

/// What the client can do; nothing that is of no use to a replica.
const CAPABILITIES: CapabilityFlags = CapabilityFlags::CLIENT_LONG_PASSWORD
    .union(CapabilityFlags::CLIENT_LONG_FLAG)
    .union(CapabilityFlags::CLIENT_PROTOCOL_41)
    .union(CapabilityFlags::CLIENT_TRANSACTIONS)
    .union(CapabilityFlags::CLIENT_SECURE_CONNECTION)
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH)
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA);

/// utf8mb4, which every supported server knows.
const UTF8MB4_GENERAL_CI: u8 = 45;

/// The largest packet that the client takes, in bytes: what the protocol allows.
const LARGEST_PACKET: u32 = 1 << 30;

/// How often a server may want a password hashed; servers say 8192, and what the protocol allows takes minutes.
const MOST_ITERATIONS: u32 = 1 << 18;

/// Bytes of a scramble, without the zero behind it.
const NONCE: usize = 20;

/// One login.
struct Login<'a> {
    packets: Packets,
    opts: &'a Opts,
    plugin: AuthPlugin<'static>,
    nonce: Vec<u8>,
    /// Whether nobody can listen, so that a password may be sent as it is.
    secure: bool,
}

/// Answers the server's greeting, over TLS where the options ask for it, and proves who we are. `lenient`: a server without
/// TLS will do.
pub(super) async fn log_in(mut packets: Packets, opts: &Opts, lenient: bool) -> Result<Packets, Error> {
    let greeting = packets.next().await?;
    if !is_parsable(&greeting) {
        return Err(lost("the server's greeting is malformed"));
    }
    let greeting = ParseBuf(&greeting).parse::<HandshakePacket<'_>>(())?;
    let mut capabilities = CAPABILITIES;
    let mut nonce = greeting.scramble_1_ref().to_vec();
    nonce.extend_from_slice(greeting.scramble_2_ref().unwrap_or_default());
    nonce.resize(NONCE, 0);
    let plugin = match greeting.auth_plugin() {
        Some(AuthPlugin::CachingSha2Password) => AuthPlugin::CachingSha2Password,
        _ => AuthPlugin::MysqlNativePassword,
    };
    let mut secure = opts.socket().is_some();
    let offered = greeting.capabilities().contains(CapabilityFlags::CLIENT_SSL);
    if let Some(options) = opts.ssl_opts().filter(|_| !secure && (offered || !lenient)) {
        capabilities |= CapabilityFlags::CLIENT_SSL;
        if !offered {
            return Err(DriverError::NoClientSslFlagFromServer.into());
        }
        let mut request = Vec::new();
        SslRequest::new(capabilities, LARGEST_PACKET, UTF8MB4_GENERAL_CI).serialize(&mut request);
        packets.send(&request).await?;
        let (transport, sequence) = packets.into_parts();
        packets = Packets::with_sequence(tls::wrap(transport, options, opts.ip_or_hostname()).await?, sequence);
        secure = true;
    }
    let mut login = Login { packets, opts, plugin, nonce, secure };
    let proof = login.proof();
    let mut response = Vec::new();
    HandshakeResponse::new(
        Some(proof),
        greeting.server_version_parsed().unwrap_or((5, 7, 0)),
        opts.user().map(str::as_bytes),
        None::<&[u8]>,
        Some(login.plugin.clone()),
        capabilities,
        None,
        LARGEST_PACKET,
    )
    .serialize(&mut response);
    if let Err(error) = login.packets.send(&response).await {
        // Who hangs up says why first.
        return Err(login.packets.receive().await.err().map_or(error, Error::from));
    }
    login.converse().await?;
    Ok(login.packets)
}

/// What a request for another plugin has for it. The plugins of `MariaDB` that sign have random bytes, whatever the last one is;
/// the others have a zero behind theirs. The parser takes a zero off in any case, and one login of 256 would be denied.
fn nonce<'p>(plugin: &AuthPlugin<'_>, packet: &'p [u8], parsed: &'p [u8]) -> &'p [u8] {
    let signs = matches!(plugin, AuthPlugin::Ed25519 | AuthPlugin::MariadbParsec { .. });
    let behind_the_name = || packet.iter().position(|byte| *byte == 0).map(|zero| &packet[zero + 1..]);
    signs.then(behind_the_name).flatten().unwrap_or(parsed)
}

impl Login<'_> {
    /// What the plugin makes of password and scramble; empty for no password.
    fn proof(&self) -> Vec<u8> {
        self.plugin.gen_data(self.opts.pass(), &self.nonce).map(|data| data.to_vec()).unwrap_or_default()
    }

    /// Answers what the server asks until it says yes.
    async fn converse(&mut self) -> Result<(), Error> {
        /// The server knows a password's hash already.
        const KNOWN: u8 = 3;
        /// The server wants the password itself.
        const PASSWORD: u8 = 4;
        loop {
            let packet = self.packets.next().await?;
            match (packet.first(), packet.get(1)) {
                (Some(&head::OK), _) => return Ok(()),
                (Some(&head::END), Some(_)) => {
                    let request = ParseBuf(&packet).parse::<AuthSwitchRequest<'_>>(())?;
                    self.plugin = request.auth_plugin().into_owned();
                    self.nonce = nonce(&self.plugin, &packet, request.plugin_data()).to_vec();
                    let proof = match &self.plugin {
                        AuthPlugin::CachingSha2Password | AuthPlugin::MysqlNativePassword | AuthPlugin::Ed25519 => {
                            self.proof()
                        }
                        // It needs the server's salt first, which an empty packet asks for.
                        AuthPlugin::MariadbParsec { .. } => Vec::new(),
                        other => {
                            let name = String::from_utf8_lossy(other.as_bytes()).into_owned();
                            return Err(DriverError::UnknownAuthPlugin { name }.into());
                        }
                    };
                    self.packets.send(&proof).await?;
                }
                (Some(first), _) if matches!(self.plugin, AuthPlugin::MariadbParsec { .. }) => {
                    // The first servers that spoke it left the code out.
                    let salt = if *first == head::MORE { &packet[1..] } else { &packet };
                    self.plugin.read_add_data(salt).ok_or_else(|| lost("the server's salt is not understood"))?;
                    if matches!(self.plugin, AuthPlugin::MariadbParsec { iterations, .. } if iterations > MOST_ITERATIONS)
                    {
                        return Err(lost("the server asks for more work than a login may cost"));
                    }
                    let proof = self.proof();
                    self.packets.send(&proof).await?;
                }
                (Some(&head::MORE), Some(&KNOWN)) => {}
                (Some(&head::MORE), Some(&PASSWORD)) => self.send_password().await?,
                _ => return Err(lost("the server's part of the login is not understood")),
            }
        }
    }

    /// `caching_sha2_password` on first sight: the password over a connection that nobody listens to, or encrypted with
    /// the server's public key.
    async fn send_password(&mut self) -> Result<(), Error> {
        const PUBLIC_KEY_PLEASE: u8 = 2;
        let mut password = self.opts.pass().unwrap_or_default().as_bytes().to_vec();
        password.push(0);
        if self.secure {
            return self.packets.send(&password).await;
        }
        self.packets.send(&[PUBLIC_KEY_PLEASE]).await?;
        let key = self.packets.next().await?;
        let (&head::MORE, key) = key.split_first().unwrap_or((&head::ERROR, &[])) else {
            return Err(lost("the server did not send its public key"));
        };
        for (byte, scramble) in password.iter_mut().zip(self.nonce.iter().take(NONCE).cycle()) {
            *byte ^= scramble;
        }
        let encrypted = encrypt(&password, key).map_err(|_| lost("the server's public key is none, or too short"))?;
        self.packets.send(&encrypted).await
    }
}

/// Whether the driver's parser takes a greeting without panic: it unwraps the number that it makes of any script's digits in
/// the version, and subtracts from the length of the scramble as from a signed byte. Servers write ASCII, and say 21.
fn is_parsable(greeting: &[u8]) -> bool {
    /// From the end of the version: connection, scramble, filler, capabilities, collation, status, capabilities.
    const LENGTH: usize = 4 + 8 + 1 + 2 + 1 + 2 + 2;
    let mut fields = greeting.iter().copied().skip(1);
    let ascii = fields.by_ref().take_while(|byte| *byte != 0).all(|byte| byte.is_ascii());
    ascii && fields.nth(LENGTH).is_some_and(|length| length < 0x80)
}

/// With an RSA key in PEM. The driver's own function panics where the key is not what it should be.
fn encrypt(password: &[u8], key: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let key = Rsa::public_key_from_pem(key).or_else(|_| Rsa::public_key_from_pem_pkcs1(key))?;
    let mut encrypted = vec![0; key.size() as usize];
    let size = key.public_encrypt(password, &mut encrypted, Padding::PKCS1_OAEP)?;
    encrypted.truncate(size);
    Ok(encrypted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_that_are_signed_are_whole_also_when_the_last_one_is_zero() {
        let packet = |data: &[u8]| [b"\xfeplugin\0".as_slice(), data].concat();
        let signed = packet(&[7, 0, 9, 0]);
        assert_eq!(nonce(&AuthPlugin::Ed25519, &signed, &[7, 0, 9]), [7, 0, 9, 0]);
        let native = packet(b"scramble\0");
        assert_eq!(nonce(&AuthPlugin::MysqlNativePassword, &native, b"scramble"), b"scramble");
    }
}

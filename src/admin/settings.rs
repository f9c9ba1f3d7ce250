//! Where the admin listener answers, and whom it lets change something.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::tls::TlsSettings;

/// The HTTP listener of metrics, health, and the operator's hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminSettings {
    /// Address and port.
    pub listen: SocketAddr,
    /// A file with the token that changes are asked for with. Without one, changes are taken from this machine only.
    pub token_file: Option<PathBuf>,
    /// HTTPS.
    pub tls: TlsSettings,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 9640).into(), token_file: None, tls: TlsSettings::default() }
    }
}

/// A shorter token could be guessed.
const SHORTEST: usize = 16;

/// The token in a file, which nobody but its owner and group may read; one line end after it is ignored.
pub fn read_token(path: &Path) -> Result<SecretString, Error> {
    let refused = |why: &str| Err(Error::new(ErrorKind::InvalidData, why.to_owned()));
    let text = Zeroizing::new(std::fs::read_to_string(path)?);
    if std::fs::metadata(path)?.permissions().mode() & 0o007 != 0 {
        return refused("everybody on this machine may read or write it; chmod o-rwx");
    }
    let token = text.strip_suffix('\n').unwrap_or(&text);
    if token.len() < SHORTEST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refused("it does not hold one token of at least 16 visible ASCII characters; openssl rand -hex 32");
    }
    Ok(SecretString::from(token))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};

    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_token_is_long_and_for_few_eyes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let token = |text: &str, mode: u32| {
            std::fs::write(file.path(), text).unwrap();
            set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            read_token(file.path()).map(|token| token.expose_secret().to_owned()).map_err(|error| error.to_string())
        };
        assert_eq!(token("0123456789abcdef\n", 0o640).unwrap(), "0123456789abcdef");
        assert!(token("0123456789abcdef", 0o644).unwrap_err().contains("chmod o-rwx"));
        for bad in ["", "short", "0123456789 abcdef", "0123456789abcdef\n\n"] {
            assert!(token(bad, 0o600).unwrap_err().contains("at least 16"), "{bad}");
        }
        assert!(read_token(Path::new("/none/such")).is_err());
    }
}

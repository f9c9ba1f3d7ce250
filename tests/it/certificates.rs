//! Certificates of a test's own, in a folder that goes with them.

use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::symm::Cipher;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};

/// An authority.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
    cert: X509,
    key: PKey<Private>,
}

/// The files of a certificate and its key.
pub(crate) struct Signed {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = key();
        let cert = certificate("authority of a test", &key, None, None);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), cert.to_pem().unwrap()).unwrap();
        Self { folder, cert, key }
    }

    /// The file of its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A certificate for a host of this name; its key is encrypted if there is a password.
    pub(crate) fn sign(&self, name: &str, password: Option<&str>) -> Signed {
        let key = key();
        let cert = certificate(name, &key, Some((&self.cert, &self.key)), Some(name));
        let pem = match password {
            None => key.private_key_to_pem_pkcs8(),
            Some(password) => key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), password.as_bytes()),
        };
        let file = |kind: &str| self.folder.path().join(format!("{name}-{}-{kind}.pem", password.is_some()));
        let signed = Signed { cert: file("cert"), key: file("key") };
        std::fs::write(&signed.cert, cert.to_pem().unwrap()).unwrap();
        std::fs::write(&signed.key, pem.unwrap()).unwrap();
        signed
    }

    /// Its files, and those of its certificate for a host of this name, become another authority's, each at once.
    pub(crate) fn takes_over(&self, other: &Self, name: &str) {
        let Signed { cert, key } = other.sign(name, None);
        for file in [other.file(), cert, key] {
            let own = self.folder().join(file.file_name().unwrap());
            let beside = own.with_extension("new");
            std::fs::copy(file, &beside).unwrap();
            std::fs::rename(beside, own).unwrap();
        }
    }

    /// Settings of a server that shows a certificate for this host.
    pub(crate) fn of_server(&self, host: &str) -> [String; 3] {
        let Signed { cert, key } = self.sign(host, None);
        [
            format!("ssl-ca={}", self.file().display()),
            format!("ssl-cert={}", cert.display()),
            format!("ssl-key={}", key.display()),
        ]
    }
}

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn certificate(name: &str, key: &PKey<Private>, by: Option<(&X509, &PKey<Private>)>, host: Option<&str>) -> X509 {
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let number = BigNum::from_u32(fastrand::u32(1..)).unwrap().to_asn1_integer().unwrap();
    builder.set_serial_number(&number).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(by.map_or(&subject, |(issuer, _)| issuer.subject_name())).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    if let Some(host) = host {
        let context = builder.x509v3_context(by.map(|(issuer, _)| &**issuer), None);
        let names = SubjectAlternativeName::new().dns(host).build(&context).unwrap();
        builder.append_extension(names).unwrap();
    } else {
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    }
    builder.sign(by.map_or(key, |(_, key)| key), MessageDigest::sha256()).unwrap();
    builder.build()
}

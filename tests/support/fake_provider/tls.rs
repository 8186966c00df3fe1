//! A private certificate authority, and servers that it vouches for.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// Whoever trusts it trusts the certificates it makes.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key.
pub struct Certificate {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Authority {
    /// A new one, whom nobody trusts yet.
    #[allow(clippy::new_without_default, reason = "two of them are never equal")]
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority of a fake provider");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority can be made");
        Authority { issuer }
    }

    /// What has to be trusted, for instance through the file that SSL_CERT_FILE names.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for localhost and 127.0.0.1.
    pub fn certificate(&self) -> Certificate {
        self.sign(&["localhost", "127.0.0.1"])
    }

    /// A certificate for another host.
    pub fn certificate_for(&self, host: &str) -> Certificate {
        self.sign(&[host])
    }

    /// How a client connects that trusts this authority only.
    pub fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("the authority is a certificate");
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has the usual versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols(alpn);
        Arc::new(config)
    }

    fn sign(&self, hosts: &[&str]) -> Certificate {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let params = CertificateParams::new(hosts).expect("the names are ASCII");
        let key = KeyPair::generate().expect("a key can be made");
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate can be signed");
        Certificate { certificate: signed.der().clone(), key: key.serialize_der() }
    }
}

impl Certificate {
    /// How a server speaks that shows this certificate.
    pub(super) fn server(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has the usual versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .expect("the key belongs to the certificate");
        config.alpn_protocols = protocols(alpn);
        Arc::new(config)
    }
}

/// Named here, because a program may have compiled in several.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Names of protocols as TLS has them.
fn protocols(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// Greets a client.
pub(super) fn accept(
    config: &Arc<ServerConfig>,
    mut tcp: TcpStream,
) -> io::Result<impl Read + Write + use<>> {
    let mut connection = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp)?;
    }
    Ok(StreamOwned::new(connection, tcp))
}

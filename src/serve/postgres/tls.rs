//! The certificate of the settings, as connections need it.

use std::sync::Arc;

use anyhow::Context;
use datafusion_postgres::pgwire::tokio::TlsAcceptor;
use datafusion_postgres::pgwire::tokio::tokio_rustls::rustls::ServerConfig;
use datafusion_postgres::pgwire::tokio::tokio_rustls::rustls::crypto::ring;
use datafusion_postgres::pgwire::tokio::tokio_rustls::rustls::pki_types::pem::PemObject;
use datafusion_postgres::pgwire::tokio::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Tls;

/// What a client that begins with TLS at once must name.
const PROTOCOL: &[u8] = b"postgresql";

/// # Errors
/// A file cannot be read, is no PEM, or the two do not belong together.
pub fn acceptor(tls: &Tls) -> anyhow::Result<TlsAcceptor> {
    let (certificate, key) = (tls.certificate.display(), tls.key.display());
    let of_certificate =
        || format!("cannot read certificates from {certificate}; postgres.tls_certificate is a PEM file, the server's own first");
    let chain = CertificateDer::pem_file_iter(&tls.certificate).with_context(of_certificate)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().with_context(of_certificate)?;
    let private = PrivateKeyDer::from_pem_file(&tls.key)
        .with_context(|| format!("cannot read a private key from {key}; postgres.tls_key is an unencrypted PEM file"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| format!("the certificate in {certificate} and the key in {key} cannot be used together"))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

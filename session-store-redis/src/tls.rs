//! TLS by rustls, the same for both client libraries.

#[cfg(feature = "fred")]
use rustls::pki_types::CertificateDer;
#[cfg(feature = "fred")]
use rustls::pki_types::pem::PemObject;
#[cfg(feature = "fred")]
use rustls::{ClientConfig, RootCertStore};

#[cfg(feature = "fred")]
use crate::driver::Tls;
#[cfg(feature = "fred")]
use crate::error::Fault;

/// Chooses `ring` for the process, unless the application has chosen before.
pub(crate) fn install_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may have been faster, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// A client that trusts the given certificates, else those of the system.
#[cfg(feature = "fred")]
pub(crate) fn client_config(tls: &Tls) -> Result<ClientConfig, Fault> {
    install_provider();
    let unreadable =
        || Fault::misconfigured("ca_pem: no certificate in PEM can be read", &"ca_pem");
    let mut roots = RootCertStore::empty();
    if let Some(pem) = &tls.ca_pem {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.map_err(|_| unreadable())?).map_err(|_| unreadable())?;
        }
        if roots.is_empty() {
            return Err(unreadable());
        }
    } else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

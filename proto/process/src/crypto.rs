//! The TLS provider of the process.

/// Installs *ring* as the process-wide rustls provider. Idempotent; call it first in every
/// `main`, because HTTP clients are built without a provider of their own.
pub fn init_crypto() {
    // An error means that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_provider_is_there_after_any_number_of_calls() {
        super::init_crypto();
        super::init_crypto();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }
}

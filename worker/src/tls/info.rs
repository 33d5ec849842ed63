//! What a handshake agreed on, as it is recorded. Everything but the server name is constant, so it costs no copy.

use bytes::Bytes;
use proxyplane_record::TlsInfo;
use rustls::{CipherSuite, CommonState, ProtocolVersion};

/// Describes a finished handshake; `sni` is the name that was sent, empty if none was.
pub(super) fn of(connection: &CommonState, sni: &str) -> TlsInfo {
    TlsInfo {
        version: Bytes::from_static(connection.protocol_version().map_or(b"", version)),
        cipher: connection
            .negotiated_cipher_suite()
            .map_or_else(Bytes::new, |suite| cipher(suite.suite())),
        alpn: connection.alpn_protocol().map_or_else(Bytes::new, alpn),
        sni: Bytes::copy_from_slice(sni.as_bytes()),
    }
}

fn version(version: ProtocolVersion) -> &'static [u8] {
    match version {
        ProtocolVersion::TLSv1_3 => b"TLSv1.3",
        ProtocolVersion::TLSv1_2 => b"TLSv1.2",
        _ => b"unknown",
    }
}

/// The IANA name; rustls's own differs for TLS 1.3.
fn cipher(suite: CipherSuite) -> Bytes {
    let name: &'static str = match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        other => return Bytes::from(format!("{other:?}")),
    };
    Bytes::from_static(name.as_bytes())
}

fn alpn(protocol: &[u8]) -> Bytes {
    match protocol {
        b"h2" => Bytes::from_static(b"h2"),
        b"http/1.1" => Bytes::from_static(b"http/1.1"),
        other => Bytes::copy_from_slice(other),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_suite_of_the_provider_has_its_iana_name() {
        for suite in &super::super::provider().cipher_suites {
            let name = super::cipher(suite.suite());
            assert!(name.starts_with(b"TLS_"), "{name:?}");
        }
    }
}

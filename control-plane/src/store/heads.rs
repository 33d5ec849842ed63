//! Table `heads`: exact bytes of heads and trailers, timings and TLS of each exchange. Its bodies are read by
//! [`super::bodies`].

use proxyplane_spec::ExchangeId;
use sqlx::PgExecutor;

use super::StoreError;

/// What is known of an exchange beside its summary. Bytes are exact, texts in display form; absent ones are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields are those of ExchangeDetail in traffic.proto, which says what each is"
)]
pub struct HeadsRow {
    pub request_head: Option<Vec<u8>>,
    pub response_head: Option<Vec<u8>>,
    pub informational_heads: Option<Vec<u8>>,
    pub request_trailers: Option<Vec<u8>>,
    pub response_trailers: Option<Vec<u8>>,
    pub dns_us: Option<i64>,
    pub connect_us: Option<i64>,
    pub tls_us: Option<i64>,
    pub first_byte_us: Option<i64>,
    pub origin_address: Option<String>,
    /// `None` when the client's side had no TLS.
    pub client_tls_version: Option<String>,
    pub client_tls_cipher: Option<String>,
    pub client_tls_alpn: Option<String>,
    pub client_tls_sni: Option<String>,
    /// `None` when the origin's side had no TLS.
    pub origin_tls_version: Option<String>,
    pub origin_tls_cipher: Option<String>,
    pub origin_tls_alpn: Option<String>,
    pub origin_tls_sni: Option<String>,
}

/// Reads those of one exchange.
pub async fn get(db: impl PgExecutor<'_>, id: ExchangeId) -> Result<Option<HeadsRow>, StoreError> {
    Ok(sqlx::query_as!(
        HeadsRow,
        "SELECT request_head, response_head, informational_heads, request_trailers, response_trailers, dns_us,
                connect_us, tls_us, first_byte_us, origin_address, client_tls_version, client_tls_cipher,
                client_tls_alpn, client_tls_sni, origin_tls_version, origin_tls_cipher, origin_tls_alpn, origin_tls_sni
         FROM heads WHERE exchange_id = $1",
        id.0,
    )
    .fetch_optional(db)
    .await?)
}

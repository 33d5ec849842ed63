//! What the handshake's answer says about compression (RFC 7692 §7.1).

/// One direction of permessage-deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeflateParams {
    /// The window is empty at the beginning of every message.
    pub(super) no_context_takeover: bool,
    /// Base-two logarithm of the window's size, 9–15.
    pub(super) window_bits: u8,
}

impl Default for DeflateParams {
    fn default() -> Self {
        Self {
            no_context_takeover: false,
            window_bits: WINDOW_BITS_MAX,
        }
    }
}

/// permessage-deflate as agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PermessageDeflate {
    /// How messages from the client are compressed.
    pub(super) client: DeflateParams,
    /// How messages from the server are compressed.
    pub(super) server: DeflateParams,
}

const WINDOW_BITS_MAX: u8 = 15;
/// zlib silently makes 9 of 8, so a peer that agreed on 8 may use 9.
const WINDOW_BITS_MIN: u8 = 9;

/// Reads the value of the answer's Sec-WebSocket-Extensions (several joined by commas). Unknown parameters are passed
/// over: a client that minds them closes the connection by itself.
pub(super) fn permessage_deflate(extensions: &[u8]) -> Option<PermessageDeflate> {
    let text = String::from_utf8_lossy(extensions);
    let mut parameters = text
        .split(',')
        .map(|extension| extension.split(';').map(str::trim))
        .find_map(|mut parts| {
            let name = parts.next()?;
            name.eq_ignore_ascii_case("permessage-deflate")
                .then(|| parts.map(str::to_owned).collect::<Vec<_>>())
        })?;
    let mut agreed = PermessageDeflate::default();
    for parameter in &mut parameters {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let bits = value.trim().trim_matches('"').parse().unwrap_or(WINDOW_BITS_MAX);
        let bits = bits.clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX);
        match name.trim().to_ascii_lowercase().as_str() {
            "client_no_context_takeover" => agreed.client.no_context_takeover = true,
            "server_no_context_takeover" => agreed.server.no_context_takeover = true,
            "client_max_window_bits" => agreed.client.window_bits = bits,
            "server_max_window_bits" => agreed.server.window_bits = bits,
            _ => {}
        }
    }
    Some(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_extension_means_no_compression() {
        assert_eq!(permessage_deflate(b""), None);
        assert_eq!(permessage_deflate(b"x-webkit-deflate-frame; permessage-deflate"), None);
    }

    #[test]
    fn each_side_has_its_own_parameters() {
        let agreed = permessage_deflate(
            b"other, permessage-deflate; client_no_context_takeover; server_max_window_bits=\"10\"; client_max_window_bits=8",
        )
        .unwrap();
        assert_eq!(
            agreed.client,
            DeflateParams {
                no_context_takeover: true,
                window_bits: 9
            }
        );
        assert_eq!(
            agreed.server,
            DeflateParams {
                no_context_takeover: false,
                window_bits: 10
            }
        );
    }

    #[test]
    fn the_bare_name_means_full_windows_kept() {
        assert_eq!(
            permessage_deflate(b"Permessage-Deflate"),
            Some(PermessageDeflate::default())
        );
    }
}

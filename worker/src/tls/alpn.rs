//! Application protocols (RFC 7301): what is offered to origins and answered to clients.

use proxyplane_record::TlsInfo;

const HTTP11: &[u8] = b"http/1.1";
const H2: &[u8] = b"h2";

/// The protocol that a handshake agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// None was offered, or none was chosen; HTTP/1.1 in practice.
    None,
    /// `http/1.1`.
    Http11,
    /// `h2`.
    H2,
}

impl Alpn {
    /// What an origin's handshake agreed on; anything that we never offer counts as none.
    pub fn agreed(info: &TlsInfo) -> Self {
        match &*info.alpn {
            H2 => Self::H2,
            HTTP11 => Self::Http11,
            _ => Self::None,
        }
    }

    /// What to answer a client whose origin could not be asked, so that an error page can be sent: HTTP/1.1 where the
    /// client allows it.
    pub fn without_origin(offered: &[Vec<u8>]) -> Self {
        let offers = |protocol: &[u8]| offered.iter().any(|one| one == protocol);
        if offers(HTTP11) {
            Self::Http11
        } else if offers(H2) {
            Self::H2
        } else {
            Self::None
        }
    }

    /// As it is answered: a list of at most one.
    pub(super) fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::None => Vec::new(),
            Self::Http11 => vec![HTTP11.to_vec()],
            Self::H2 => vec![H2.to_vec()],
        }
    }
}

/// What is offered to an origin: the client's list ∩ {h2, http/1.1}, in the client's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    Nothing,
    Http11,
    H2,
    H2ThenHttp11,
    Http11ThenH2,
}

impl Offer {
    /// How many there are; an array with one place for each is indexed by `self as usize`.
    pub(super) const COUNT: usize = 5;

    pub(super) fn of(client: &[Vec<u8>]) -> Self {
        let place = |protocol: &[u8]| client.iter().position(|one| one == protocol);
        match (place(H2), place(HTTP11)) {
            (None, None) => Self::Nothing,
            (None, Some(_)) => Self::Http11,
            (Some(_), None) => Self::H2,
            (Some(h2), Some(http11)) if h2 < http11 => Self::H2ThenHttp11,
            (Some(_), Some(_)) => Self::Http11ThenH2,
        }
    }

    pub(super) fn protocols(self) -> Vec<Vec<u8>> {
        let list: &[&[u8]] = match self {
            Self::Nothing => &[],
            Self::Http11 => &[HTTP11],
            Self::H2 => &[H2],
            Self::H2ThenHttp11 => &[H2, HTTP11],
            Self::Http11ThenH2 => &[HTTP11, H2],
        };
        list.iter().map(|protocol| protocol.to_vec()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(protocols: &[&str]) -> Vec<Vec<u8>> {
        protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
    }

    #[test]
    fn the_offer_is_what_we_can_carry_in_the_clients_order() {
        for (client, offer) in [
            (list(&[]), list(&[])),
            (list(&["acme-tls/1", "http/1.0"]), list(&[])),
            (list(&["http/1.1"]), list(&["http/1.1"])),
            (list(&["h3", "h2"]), list(&["h2"])),
            (list(&["h2", "spdy/3", "http/1.1"]), list(&["h2", "http/1.1"])),
            (list(&["http/1.1", "h2"]), list(&["http/1.1", "h2"])),
        ] {
            assert_eq!(Offer::of(&client).protocols(), offer);
        }
    }

    #[test]
    fn an_error_page_prefers_http11() {
        assert_eq!(Alpn::without_origin(&list(&["h2", "http/1.1"])), Alpn::Http11);
        assert_eq!(Alpn::without_origin(&list(&["h2"])), Alpn::H2);
        assert_eq!(Alpn::without_origin(&list(&["foo"])), Alpn::None);
    }
}

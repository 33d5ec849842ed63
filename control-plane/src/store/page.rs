//! Keyset pages: opaque tokens that are bound to their query, and etags.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use super::StoreError;

/// Rows of a page when nothing is said.
pub const SIZE_DEFAULT: u32 = 100;
/// Most rows of a page.
pub const SIZE_MAX: u32 = 1_000;
/// Bytes of a token's checksum.
const TAG: usize = 12;

/// Which page is asked for.
#[derive(Clone, Debug)]
pub struct Page {
    size: u32,
    token: Option<String>,
}

impl Page {
    /// `size` 0 means [`SIZE_DEFAULT`], above [`SIZE_MAX`] is [`SIZE_MAX`]; an empty `token` means the first page.
    pub fn new(size: u32, token: &str) -> Self {
        let size = if size == 0 { SIZE_DEFAULT } else { size.min(SIZE_MAX) };
        Self {
            size,
            token: (!token.is_empty()).then(|| token.to_owned()),
        }
    }

    /// The first page, of [`SIZE_MAX`] rows.
    pub fn first() -> Self {
        Self {
            size: SIZE_MAX,
            token: None,
        }
    }

    /// The page after one that ended with this token.
    #[must_use]
    pub fn next(&self, token: &str) -> Self {
        Self::new(self.size, token)
    }

    /// One row more than the page has, to learn whether another follows.
    pub(crate) fn fetch(&self) -> i64 {
        i64::from(self.size) + 1
    }
}

/// Rows of one page.
#[derive(Clone, Debug)]
pub struct Paged<T> {
    /// At most as many as were asked for.
    pub rows: Vec<T>,
    /// Empty on the last page.
    pub next_page_token: String,
}

/// Makes and reads the tokens of one query.
pub(crate) struct Cursor {
    query: [u8; 32],
}

impl Cursor {
    /// Of the query `name` with these parameters (all but page size and token).
    pub(crate) fn of(name: &str, parameters: &impl Serialize) -> Self {
        let mut hash = Sha256::new();
        hash.update(name);
        hash.update([0]);
        hash.update(serde_json::to_vec(parameters).expect("filters are plain data"));
        Self {
            query: hash.finalize().into(),
        }
    }

    /// The key after which the page begins.
    pub(crate) fn after<K: DeserializeOwned>(&self, page: &Page) -> Result<Option<K>, StoreError> {
        page.token
            .as_deref()
            .map(|token| self.read(token).ok_or(StoreError::InvalidPageToken))
            .transpose()
    }

    /// Cuts the row that was fetched beyond the page and makes the token from the last that stays.
    pub(crate) fn paged<T, K: Serialize>(&self, page: &Page, mut rows: Vec<T>, key: impl Fn(&T) -> K) -> Paged<T> {
        let size = page.size as usize;
        let more = rows.len() > size;
        rows.truncate(size);
        let next_page_token = match rows.last() {
            Some(last) if more => self.write(&key(last)),
            _ => String::new(),
        };
        Paged { rows, next_page_token }
    }

    /// As [`Self::paged`], for a page that may have to end early, at row `full`.
    pub(crate) fn paged_at<T, K: Serialize>(
        &self,
        page: &Page,
        full: Option<usize>,
        mut rows: Vec<T>,
        key: impl Fn(&T) -> K,
    ) -> Paged<T> {
        match full {
            Some(end) if end > 0 && end <= page.size as usize && end < rows.len() => {
                rows.truncate(end);
                let next_page_token = rows.last().map(|last| self.write(&key(last))).unwrap_or_default();
                Paged { rows, next_page_token }
            }
            _ => self.paged(page, rows, key),
        }
    }

    fn write(&self, key: &impl Serialize) -> String {
        let key = serde_json::to_vec(key).expect("keys are plain data");
        let mut token = self.tag(&key).to_vec();
        token.extend_from_slice(&key);
        BASE64_URL_SAFE_NO_PAD.encode(token)
    }

    fn read<K: DeserializeOwned>(&self, token: &str) -> Option<K> {
        let token = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let (tag, key) = token.split_at_checked(TAG)?;
        if tag != self.tag(key) {
            return None;
        }
        serde_json::from_slice(key).ok()
    }

    /// Guards against damage and mix-ups, not against forgery: a token gives access to nothing.
    fn tag(&self, key: &[u8]) -> [u8; TAG] {
        let digest = Sha256::new().chain_update(self.query).chain_update(key).finalize();
        let mut tag = [0; TAG];
        tag.copy_from_slice(&digest[..TAG]);
        tag
    }
}

/// The etag of a row at this revision.
pub(crate) fn etag(revision: i64) -> String {
    format!("r{revision}")
}

/// Does `wanted` match the row? `None` and empty match any.
pub(crate) fn check_etag(revision: i64, wanted: Option<&str>) -> Result<(), StoreError> {
    match wanted {
        Some(wanted) if !wanted.is_empty() && wanted != etag(revision) => Err(StoreError::EtagMismatch),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token_of(cursor: &Cursor) -> String {
        cursor
            .paged(&Page::new(1, ""), vec![7_u32, 8], |key| *key)
            .next_page_token
    }

    #[test]
    fn a_token_brings_back_its_key() {
        let cursor = Cursor::of("q", &("a", 1));
        let page = Page::new(1, &token_of(&cursor));
        assert_eq!(cursor.after::<u32>(&page).unwrap(), Some(7));
        assert_eq!(cursor.after::<u32>(&Page::new(1, "")).unwrap(), None);
    }

    #[test]
    fn a_token_of_another_query_is_refused() {
        let token = token_of(&Cursor::of("q", &("a", 1)));
        for other in [Cursor::of("q", &("a", 2)), Cursor::of("r", &("a", 1))] {
            let refused = other.after::<u32>(&Page::new(1, &token));
            assert!(matches!(refused, Err(StoreError::InvalidPageToken)));
        }
    }

    #[test]
    fn a_token_with_any_changed_character_is_refused() {
        let cursor = Cursor::of("q", &());
        let token = token_of(&cursor);
        for at in 0..token.len() {
            let mut bad = token.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bad).unwrap();
            assert!(cursor.after::<u32>(&Page::new(1, &bad)).is_err(), "{at}");
        }
        assert!(cursor.after::<u32>(&Page::new(1, "!")).is_err());
    }

    #[test]
    fn the_last_page_has_no_token() {
        let cursor = Cursor::of("q", &());
        assert_eq!(
            cursor.paged(&Page::new(2, ""), vec![1, 2], |key| *key).next_page_token,
            ""
        );
    }
}

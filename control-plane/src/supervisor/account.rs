//! Whom workers run as when we are root: an account of their own, never Postgres'.
//!
//! Files and processes belong to numbers, so no account has to be made: without one named `proxyplane-worker` the number
//! below is used. It lies in a range that distributions and systemd leave alone (systemd's UIDS-GIDS: people up to
//! 60,513, dynamic services from 61,184), and under 65,536, so that it also exists in containers. It is the same for
//! every installation: what keeps two workers of one account apart is Landlock.

use nix::unistd::{User, geteuid};
use proxyplane_spec::Account;

/// The account that a package may have made.
const NAME: &str = "proxyplane-worker";
/// User and group without it.
const NUMBER: u32 = 61_070;
/// Accounts that the private Postgres may have.
const OF_POSTGRES: [&str; 2] = ["postgres", "nobody"];

/// The account of workers unless a setting says otherwise; `None` if we are not root, and they are as we are.
pub(crate) fn usual() -> Option<Account> {
    let number = Account {
        uid: NUMBER,
        gid: NUMBER,
    };
    geteuid().is_root().then(|| {
        let named = User::from_name(NAME).ok().flatten();
        named.as_ref().map_or(number, account)
    })
}

/// The account that `text` means: a name, `uid` or `uid:gid`. The error says what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Account, String> {
    if !geteuid().is_root() {
        return Err("only a control plane that runs as root can change to another account".to_owned());
    }
    let account = numbers(text).or_else(|| User::from_name(text).ok().flatten().as_ref().map(account));
    let account = account.ok_or_else(|| format!("'{text}' is no account: give a name, a uid, or uid:gid"))?;
    if account.uid == 0 || account.gid == 0 {
        return Err("workers do not run as root".to_owned());
    }
    let uid_of = |name| User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    match OF_POSTGRES.into_iter().find(|name| uid_of(name) == Some(account.uid)) {
        Some(name) => Err(format!("'{name}' is for Postgres, whose files workers must not reach")),
        None => Ok(account),
    }
}

fn numbers(text: &str) -> Option<Account> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    Some(Account {
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
    })
}

fn account(user: &User) -> Account {
    Account {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_a_name_or_numbers_and_neither_root_nor_postgres() {
        if !geteuid().is_root() {
            return assert!(parse("61071").unwrap_err().contains("root"));
        }
        assert_eq!(
            parse("61071"),
            Ok(Account {
                uid: 61_071,
                gid: 61_071
            })
        );
        assert_eq!(parse("61071:100"), Ok(Account { uid: 61_071, gid: 100 }));
        assert_eq!(parse("daemon").map(|account| account.uid), Ok(1));
        for (bad, why) in [
            ("0", "root"),
            ("5:0", "root"),
            ("root", "root"),
            ("nobody", "Postgres"),
            ("-1", "no account"),
            ("61071:", "no account"),
            ("who is this", "no account"),
        ] {
            assert!(parse(bad).unwrap_err().contains(why), "{bad}");
        }
    }

    #[test]
    fn only_root_has_another_account_for_workers() {
        assert_eq!(usual().is_some(), geteuid().is_root());
        assert!(usual().is_none_or(|account| account.uid != 0));
    }
}

//! How much the machine's CPUs are wanted: pressure stall information (Linux, Documentation/accounting/psi.rst).

use std::{fs::File, os::unix::fs::FileExt as _, time::Duration};

use tokio::time::Instant;

/// What the sandbox lets a worker read for it.
pub(crate) const FILE: &str = "/proc/pressure/cpu";
/// Its first line is shorter; numbers only grow by digits.
const LINE_MAX: usize = 128;

/// Reads it again and again.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    file: Option<File>,
    /// When it was read last, and for how long somebody had waited by then.
    last: Option<(Instant, Duration)>,
    share: Option<f64>,
}

impl Pressure {
    /// Not known for ever if the kernel does not tell.
    pub(crate) fn of_machine() -> Self {
        Self {
            file: File::open(FILE).ok(),
            ..Self::default()
        }
    }

    /// The share of the time, 0 to 1, in which somebody waited for a CPU, between the last two looks.
    pub(super) fn share(&self) -> Option<f64> {
        self.share
    }

    pub(super) fn look(&mut self, now: Instant) {
        let Some(waited) = self.read() else { return };
        if let Some((at, before)) = self.last.replace((now, waited)) {
            let since = now.saturating_duration_since(at).as_secs_f64();
            self.share = (since > 0.0).then(|| waited.saturating_sub(before).as_secs_f64() / since);
        }
    }

    fn read(&self) -> Option<Duration> {
        let mut buffer = [0; LINE_MAX];
        let length = self.file.as_ref()?.read_at(&mut buffer, 0).ok()?;
        waited(str::from_utf8(&buffer[..length]).ok()?)
    }
}

#[cfg(test)]
impl Pressure {
    /// Always so much.
    pub(super) fn of(share: f64) -> Self {
        Self {
            share: Some(share),
            ..Self::default()
        }
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`, the total in µs.
fn waited(text: &str) -> Option<Duration> {
    let some = text.lines().next()?.strip_prefix("some ")?;
    let total = some.split(' ').find_map(|field| field.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_whatever_stands_around_it() {
        let text = "some avg10=1.53 avg60=0.87 avg300=0.73 total=1157622151\nfull avg10=0.00 total=7\n";
        assert_eq!(waited(text), Some(Duration::from_micros(1_157_622_151)));
        assert_eq!(waited("full avg10=0.00 total=7\n"), None);
        assert_eq!(waited("some total=x"), None);
    }

    #[test]
    fn a_kernel_that_does_not_tell_is_not_known() {
        let mut pressure = Pressure::default();
        pressure.look(Instant::now());
        assert_eq!(pressure.share(), None);
    }
}

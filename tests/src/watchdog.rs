//! A test that hangs ends the run, by name: a CI that waits for ever tells nobody which test it was.

use std::{
    collections::HashMap,
    io::Write as _,
    process,
    sync::{Mutex, Once, PoisonError},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

/// For one test. Many times what the slowest takes on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_mins(4);
/// Between looks.
const PAUSE: Duration = Duration::from_secs(1);

static RUNNING: Mutex<Option<HashMap<ThreadId, Test>>> = Mutex::new(None);

thread_local! {
    static TEST: Watched = Watched::begin();
}

/// Watches over the test that calls this, until its thread ends.
pub(crate) fn watch() {
    TEST.with(|_| ());
}

/// The same for a test that takes so long by its nature.
pub(crate) fn watch_for(limit: Duration) {
    watch();
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(test) = running.get_or_insert_default().get_mut(&thread::current().id()) {
        test.limit = limit;
    }
}

struct Test {
    name: String,
    since: Instant,
    limit: Duration,
}

struct Watched(ThreadId);

impl Watched {
    fn begin() -> Self {
        static WATCHDOG: Once = Once::new();
        WATCHDOG.call_once(|| drop(thread::spawn(look)));
        let test = thread::current();
        let name = test.name().unwrap_or("a test without a name").to_owned();
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, limit) = (Instant::now(), LIMIT);
        let began = Test { name, since, limit };
        running.get_or_insert_default().insert(test.id(), began);
        Self(test.id())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.get_or_insert_default().remove(&self.0);
    }
}

fn look() {
    loop {
        thread::sleep(PAUSE);
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        for Test { name, since, limit } in running.iter().flat_map(HashMap::values) {
            if since.elapsed() > *limit {
                // Not `eprintln!`: what threads of a test print so is kept back until the test ends.
                let _ = writeln!(
                    std::io::stderr(),
                    "\ntest {name} hangs: it has run for {limit:?}. The run ends here."
                );
                // Children notice that their leash is gone, and end.
                process::exit(101);
            }
        }
    }
}

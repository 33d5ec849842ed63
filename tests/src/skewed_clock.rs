//! A wall clock that a test puts forward and back, for a control plane and its workers.
//!
//! What they ask the C library for is answered by a library that is loaded before it; it is built here, with the C
//! compiler that building Proxyplane needs anyway. Workers get it from a program that is started in their place: they
//! inherit nothing from the environment.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::world::binary;

/// Adds what SKEW holds, in seconds, to the wall clock. Other clocks go on as they are.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long *skew;
__attribute__((constructor)) static void map(void) {
    int file = open(SKEW, O_RDONLY | O_CLOEXEC);
    void *at = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (at != MAP_FAILED) skew = at;
    if (file >= 0) close(file);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && skew && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *skew;
    return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"#;

/// Becomes WORKER, with the library.
const STARTER: &str = r#"
#include <stdlib.h>
#include <unistd.h>
int main(int count, char **arguments) {
    (void)count;
    setenv("LD_PRELOAD", LIBRARY, 1);
    execv(WORKER, arguments);
    return 127;
}
"#;

/// The clock of one world.
pub struct SkewedClock {
    skew: File,
    library: PathBuf,
    worker: PathBuf,
}

impl SkewedClock {
    /// Builds it in `directory`; `None` where there is no C compiler.
    pub fn build(directory: &Path) -> Option<Self> {
        let skew = directory.join("skew");
        let library = directory.join("clock.so");
        let worker = directory.join("skewed-worker");
        fs::write(&skew, 0_i64.to_ne_bytes()).expect("a file can be written");
        let defined = |name: &str, path: &Path| format!("-D{name}=\"{}\"", path.display());
        compile(LIBRARY, &library, &["-shared", "-fPIC", &defined("SKEW", &skew)])?;
        let real = binary("proxyplane-worker");
        compile(
            STARTER,
            &worker,
            &[&defined("LIBRARY", &library), &defined("WORKER", &real)],
        )?;
        let skew = File::options().write(true).open(skew).expect("it was just made");
        Some(Self { skew, library, worker })
    }

    /// From now on the clock is off by so many seconds.
    pub fn put(&self, seconds: i64) {
        // In place: it is mapped.
        let written = self.skew.write_all_at(&seconds.to_ne_bytes(), 0);
        written.expect("eight bytes can be overwritten");
    }

    /// Value of `LD_PRELOAD` for a control plane.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Value of `--worker-bin`.
    pub fn worker(&self) -> &Path {
        &self.worker
    }
}

fn compile(source: &str, program: &Path, arguments: &[&str]) -> Option<()> {
    let file = program.with_extension("c");
    fs::write(&file, source).expect("a file can be written");
    let mut compiler = Command::new("cc");
    let output = compiler
        .args(["-Wall", "-O1"])
        .args(arguments)
        .arg("-o")
        .args([program, &file])
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the C compiler fails: {said}");
    Some(())
}

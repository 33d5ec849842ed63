//! Stopping processes in their tracks, and all that they started.

use std::fs;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::eventually;

/// Processes that neither run nor end until this is dropped.
#[derive(Debug)]
pub struct Frozen(Vec<i32>);

impl Frozen {
    /// Stops a process and its children. When this returns, none of their threads runs: a signal alone is only the wish.
    #[track_caller]
    pub fn tree(process: i32) -> Self {
        let mut processes = children(process);
        processes.push(process);
        Self::all(processes)
    }

    /// The same for a process without its children.
    #[track_caller]
    pub fn alone(process: i32) -> Self {
        Self::all(vec![process])
    }

    #[track_caller]
    fn all(processes: Vec<i32>) -> Self {
        // Children first: a postmaster would notice that one has stopped.
        for &process in &processes {
            signal(process, Signal::SIGSTOP);
        }
        let frozen = Self(processes);
        eventually("every thread has stopped", || {
            frozen.0.iter().all(|&process| is_stopped(process)).then_some(())
        });
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for &process in self.0.iter().rev() {
            signal(process, Signal::SIGCONT);
        }
    }
}

/// Kills a process and its children on the spot.
pub fn kill_tree(process: i32) {
    let mut processes = children(process);
    processes.push(process);
    for process in processes {
        signal(process, Signal::SIGKILL);
    }
}

fn signal(process: i32, signal: Signal) {
    // It may just have ended by itself.
    let _ = kill(Pid::from_raw(process), signal);
}

/// Have all threads of a process stopped? One that is gone does not run either.
fn is_stopped(process: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        matches!(
            stat(&format!("{}/stat", thread.path().display()), 0).as_deref(),
            None | Some("T" | "Z")
        )
    })
}

fn children(parent: i32) -> Vec<i32> {
    let parent = parent.to_string();
    let entries = fs::read_dir("/proc").expect("proc is mounted").flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes
        .filter(|process| stat(&format!("/proc/{process}/stat"), 1).as_ref() == Some(&parent))
        .collect()
}

/// A field behind the name in proc_pid_stat(5): 0 is the state, 1 the parent.
fn stat(file: &str, field: usize) -> Option<String> {
    let stat = fs::read_to_string(file).ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(field).map(str::to_owned)
}

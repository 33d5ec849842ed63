use std::{
    net::TcpStream,
    os::fd::IntoRawFd as _,
    process::{Command as Program, Stdio},
    thread,
};

use proxyplane_spec::ListenHost;

use super::*;
use crate::supervisor::listeners::pick_port;

fn bound() -> Listeners {
    let port = pick_port(ListenHost::DEFAULT).unwrap().unwrap();
    Listeners::bind(ListenHost::DEFAULT, port).unwrap()
}

/// As if a program were executed after `leave`: what it left is known by its number only. Returns what `then` makes of
/// what is found. In a thread whose descriptors are its own, so that nobody else's are in the way.
fn executed<T: Send + 'static>(
    leave: impl FnOnce() + Send + 'static,
    then: impl FnOnce(Inherited) -> T + Send + 'static,
) -> T {
    let program = thread::spawn(move || {
        unshare(CloneFlags::CLONE_FILES).unwrap();
        leave();
        then(Inherited::take())
    });
    program.join().unwrap()
}

fn leave(bequest: Bequest) {
    let _ = bequest.open().unwrap().into_raw_fd();
    // Nothing is dropped when a program is executed.
    std::mem::forget(bequest);
}

/// Leaves a memfd with these entries.
fn leave_note(entries: &[Entry]) {
    let note = note(entries).unwrap();
    set_cloexec(&note, false).unwrap();
    let _ = note.into_raw_fd();
}

fn count(inherited: &Inherited) -> usize {
    inherited.0.values().map(Vec::len).sum()
}

/// What a child of the calling thread has open.
fn of_a_child() -> String {
    let mut child = Program::new("ls");
    let listed = child
        .args(["-l", "/proc/self/fd"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(listed.stdout).unwrap()
}

fn is_open(number: RawFd) -> bool {
    Path::new(DESCRIPTORS).join(number.to_string()).is_symlink()
}

#[test]
fn listeners_that_were_left_are_taken_with_who_waits_in_their_queue_and_no_child_gets_them() {
    let (id, listeners) = (ServiceId::new(), bound());
    let address = listeners.addresses()[0];
    let waiting = TcpStream::connect(address).unwrap();
    let (left, taken, accepted) = executed(
        move || leave(Bequest(vec![(id, listeners)])),
        move |mut inherited| {
            let children = of_a_child();
            let sockets = inherited.0.remove(&id).unwrap();
            let [(on, listener)] = sockets.as_slice() else {
                panic!("{sockets:?}")
            };
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert_eq!(count(&Inherited::take()), 0, "there is nothing more");
            (children, *on, peer)
        },
    );
    assert_eq!((taken, accepted), (address, waiting.local_addr().unwrap()));
    assert!(!left.contains("socket:") && !left.contains("memfd:"), "{left}");
}

#[test]
fn a_child_that_another_thread_starts_meanwhile_gets_nothing() {
    let listeners = bound();
    let bequest = Bequest(vec![(ServiceId::new(), listeners)]);
    let (open, opened) = std::sync::mpsc::channel();
    let (done, looked) = std::sync::mpsc::channel::<()>();
    let leaving = thread::spawn(move || {
        let note = bequest.open().unwrap();
        open.send(of_a_child()).unwrap();
        looked.recv().unwrap();
        drop(note);
    });
    let own = opened.recv().unwrap();
    assert!(own.contains("socket:") && own.contains("memfd:"), "{own}");
    let other = of_a_child();
    done.send(()).unwrap();
    leaving.join().unwrap();
    assert!(!other.contains("memfd:"), "{other}");
}

#[test]
fn what_is_no_listener_or_listens_elsewhere_is_closed_and_what_is_not_there_passed_over() {
    executed(
        || {
            let good = TcpListener::bind("127.0.0.1:0").unwrap();
            let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = good.local_addr().unwrap();
            let connected = TcpStream::connect(address).unwrap();
            let file = File::open("/dev/null").unwrap();
            let service = ServiceId::new();
            let numbers = [
                good.into_raw_fd(),
                elsewhere.into_raw_fd(),
                connected.into_raw_fd(),
                file.into_raw_fd(),
            ];
            let entry = |descriptor| Entry {
                service,
                address,
                descriptor,
            };
            let mut entries: Vec<_> = numbers.into_iter().map(entry).collect();
            // Named twice; standard input; not open.
            entries.extend([numbers[0], 0, 1_000_000].map(entry));
            leave_note(&entries);
        },
        |inherited| {
            assert_eq!(count(&inherited), 1);
            let (_, good) = &inherited.0.values().next().unwrap()[0];
            let good = good.as_raw_fd();
            assert!(is_open(0) && is_open(good));
            let open: Vec<_> = fs::read_dir(DESCRIPTORS)
                .unwrap()
                .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
                .map(|target| target.to_string_lossy().into_owned())
                .collect();
            assert!(!open.iter().any(|target| target.contains(NAME)), "{open:?}");
            drop(inherited);
            assert!(!is_open(good), "dropped, it is closed");
        },
    );
}

#[test]
fn a_file_that_only_has_the_name_is_not_believed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let entry = Entry {
        service: ServiceId::new(),
        address: listener.local_addr().unwrap(),
        descriptor: listener.as_raw_fd(),
    };
    let taken = executed(
        move || {
            let mut unsealed = File::from(memfd_create(NAME, MFdFlags::MFD_ALLOW_SEALING).unwrap());
            unsealed.write_all(&serde_json::to_vec(&[entry]).unwrap()).unwrap();
            let _ = unsealed.into_raw_fd();
            std::mem::forget(listener);
        },
        |inherited| count(&inherited),
    );
    assert_eq!(taken, 0);
}

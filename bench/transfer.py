"""Big bodies: 5 GiB each way at once beside hudsucker, and 100 MiB captured whole."""
import hashlib, subprocess, sys, threading, time

import stack

GIB5 = 5 << 30


def both_ways(port: int, pid: int | None) -> tuple[float, float]:
    """Downloads and uploads 5 GiB at once through a proxy: (MiB/s in all, peak worker RSS in MiB)."""
    proxy = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-x", f"http://127.0.0.1:{port}"]
    base = f"http://127.0.0.1:{stack.ORIGIN_HTTP}"
    begin = time.monotonic()
    jobs = [subprocess.Popen([*proxy, f"{base}/files/5g"], stdout=subprocess.PIPE, text=True),
            subprocess.Popen([*proxy, "-T", str(stack.DIR / "www/5g"), "-X", "POST", f"{base}/sink"], stdout=subprocess.PIPE, text=True)]
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, stack.rss_mib(pid)) if pid else 0.0

    watcher = threading.Thread(target=watch)
    watcher.start()
    codes = [job.communicate()[0] for job in jobs]
    done.set()
    watcher.join()
    if codes != ["200", "200"]:
        sys.exit(f"port {port}: transfers answered {codes}")
    return 2 * 5120 / (time.monotonic() - begin), peak


def five_gib(ours: "stack.Ours", port: int, peers: list[str], rounds: int = 2) -> None:
    ours.proxy("transfer", port)
    pid = ours.get("transfer")["pid"]
    mine, theirs, peak = [], [], 0.0
    for _ in range(rounds):
        rate, rss = both_ways(port, pid)
        mine.append(rate)
        peak = max(peak, rss)
        if "hudsucker" in peers:
            theirs.append(both_ways(stack.PEERS["hudsucker"], None)[0])
    ours.drained("transfer", 2 * rounds)
    rows = ours.ctl("traffic", "list", "--proxy", "transfer")
    exact = all(r["truncated"] and max(r["request_size"], r["response_size"]) == GIB5 for r in rows)
    ratio = f", {max(mine) / max(theirs):.2f}× hudsucker's {max(theirs):.0f} (wanted ≥0.8)" if theirs else ""
    print(f"\n5 GiB down and 5 GiB up at once: {max(mine):.0f} MiB/s{ratio}; worker peak {peak:.1f} MiB (wanted <64); "
          f"{len(rows)} rows truncated with true sizes: {exact}")


def captured_whole(ours: "stack.Ours", port: int) -> None:
    ours.proxy("whole", port, "--capture-limit", str(200 << 20))
    pid = ours.get("whole")["pid"]
    cp = ours.process.pid
    peak, peak_cp, done = 0.0, 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak, peak_cp
        while not done.wait(0.02):
            peak, peak_cp = max(peak, stack.rss_mib(pid)), max(peak_cp, stack.rss_mib(cp))

    watcher = threading.Thread(target=watch)
    watcher.start()
    subprocess.run(["curl", "-sSf", "-o", "/dev/null", "-x", f"http://127.0.0.1:{port}", f"http://127.0.0.1:{stack.ORIGIN_HTTP}/files/100m"], check=True)
    ours.drained("whole", 1)
    while ours.get("whole")["backlog"]:  # its row comes before the last of its body
        time.sleep(0.02)
    done.set()
    watcher.join()
    row = ours.ctl("traffic", "list", "--proxy", "whole")[0]
    body = subprocess.run([stack.TARGET / "proxyctl", "traffic", "body", row["id"], "response"], env=ours.env, capture_output=True, check=True).stdout
    same = hashlib.sha256(body).digest() == hashlib.sha256((stack.DIR / "www/100m").read_bytes()).digest()
    print(f"\n100 MiB captured whole: byte-equal {same}, worker peak {peak:.1f} MiB (wanted ≤64), control plane peak {peak_cp:.1f} MiB (wanted ≤128)")

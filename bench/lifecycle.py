"""Start to first byte, the idle worker, what a worker keeps after a load, and how soon a database that hangs is noticed."""
import os, signal, socket, time, urllib.error, urllib.request

import stack


def start_to_first_byte(ours: "stack.Ours", port: int, times: int = 50) -> None:
    """`proxyctl proxy start` to the first byte of an answer through the proxy."""
    ours.proxy("starts", port)
    ours.ctl("proxy", "stop", "starts")
    took = []
    request = f"GET http://127.0.0.1:{stack.ORIGIN_HTTP}/ HTTP/1.1\r\nHost: 127.0.0.1:{stack.ORIGIN_HTTP}\r\n\r\n".encode()
    for _ in range(times):
        begin = time.monotonic()
        ours.ctl("proxy", "start", "starts")
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.sendall(request)
            assert s.recv(15).startswith(b"HTTP/1.1 200"), "not 200"
        took.append((time.monotonic() - begin) * 1e3)
        ours.ctl("proxy", "stop", "starts")
    print(f"\nproxy start → first byte, {times} times, proxyctl's own start included: "
          f"median {stack.quantile(took, 0.5):.0f} ms (wanted ≤80), p99 {stack.quantile(took, 0.99):.0f} ms (wanted ≤150)")


def idle(ours: "stack.Ours", port: int, seconds: int = 20) -> None:
    ours.proxy("idle", port)
    pid = ours.get("idle")["pid"]
    time.sleep(3)
    before = stack.switches(pid)
    time.sleep(seconds)
    rate = (stack.switches(pid) - before) / seconds
    print(f"\nidle worker: {stack.rss_mib(pid):.1f} MiB RSS (wanted ≤12), {rate:.1f} voluntary context switches a second (wanted ≤5)")


def after_load(ours: "stack.Ours", name: str) -> None:
    """RSS 60 s after the load of `name` ended."""
    pid = ours.get(name)["pid"]
    time.sleep(60)
    print(f"\nworker 60 s after the load: {stack.rss_mib(pid):.1f} MiB RSS (wanted ≤32)")


def storage(ours: "stack.Ours", port: int, times: int = 10) -> None:
    """SIGSTOP of Postgres to the answer that says so, of a list and of /ready."""
    ours.proxy("storage", port)
    took = {"traffic list": [], "/ready": []}
    for _ in range(times):
        pids = ours.pids("storage")["postgres"]
        for pid in reversed(pids):  # the postmaster last: it would notice that a child has stopped
            os.kill(pid, signal.SIGSTOP)
        try:
            begin = time.monotonic()
            said = ours.refused("traffic", "list")
            took["traffic list"].append((time.monotonic() - begin) * 1e3)
            assert "database" in said, said
            begin = time.monotonic()
            assert ready(ours) == 503, "ready without a database"
            took["/ready"].append((time.monotonic() - begin) * 1e3)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        while ready(ours) != 200:
            time.sleep(0.05)
    for what, times_ms in took.items():
        print(f"\nfrozen Postgres: {what} says so after {stack.quantile(times_ms, 0.5):.0f} ms, at most {max(times_ms):.0f} ms, "
              f"of {times} times (wanted ≤2000)")


def ready(ours: "stack.Ours") -> int:
    try:
        return urllib.request.urlopen(f"{ours.server}/ready", timeout=60).status
    except urllib.error.HTTPError as refused:
        return refused.code

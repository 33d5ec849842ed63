"""What waits while a part is away, and what it costs when that is back: clients of a dead worker, records of a dead database."""
import os, selectors, signal, socket, statistics, threading, time
from pathlib import Path

import stack
from api import Api
from clients import failed, requests

URL = f"http://127.0.0.1:{stack.ORIGIN_HTTP}/"
LIVE = 1000  # requests a second of the traffic that must not notice


def freeze(pids: list[int]) -> None:
    """SIGSTOP, and waits until every thread has stopped."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        while not all(stack.is_stopped(pid, task) for task in os.listdir(f"/proc/{pid}/task")):
            time.sleep(0.001)


def thaw(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass


def queued(ours: "stack.Ours", port: int, count: int = 200, rounds: int = 10) -> None:
    """SIGKILL of a worker while clients wait in its listener's queue: kill → first byte, and → the last client's answer."""
    ours.proxy("queued", port)
    request = f"GET {URL} HTTP/1.1\r\nHost: 127.0.0.1:{stack.ORIGIN_HTTP}\r\n\r\n".encode()
    served, first, last = 0, [], []
    for _ in range(rounds):
        time.sleep(5.5)  # one that has served for five seconds is replaced at once
        pid = ours.get("queued")["pid"]
        freeze([pid])  # it would accept some of them before it dies
        with selectors.DefaultSelector() as waiting:
            for _ in range(count):
                client = socket.create_connection(("127.0.0.1", port))
                client.sendall(request)
                waiting.register(client, selectors.EVENT_READ)
            os.kill(pid, signal.SIGKILL)
            begin, times = time.monotonic(), []
            while waiting.get_map() and (ready := waiting.select(10)):
                for key, _ in ready:
                    try:
                        answer = key.fileobj.recv(4096)
                    except OSError:
                        answer = b""
                    if answer.startswith(b"HTTP/1.1 200"):
                        times.append((time.monotonic() - begin) * 1e3)
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()
            for key in list(waiting.get_map().values()):
                key.fileobj.close()
        served += len(times)
        first.append(min(times, default=float("inf")))
        last.append(max(times, default=float("inf")))
    print(f"\nSIGKILL of a worker with {count} clients in its queue, {rounds} times: {served} of {count * rounds} served (wanted all)")
    print(f"  kill → first byte: median {statistics.median(first):.0f} ms, at most {max(first):.0f} ms (wanted <150); "
          f"→ the last client's answer: median {statistics.median(last):.0f} ms, at most {max(last):.0f} ms")


class Live:
    """Requests at a steady rate in the background, in loads of two seconds."""

    def __init__(self, port: int) -> None:
        self.port, self.sent, self.failed, self.p50, self.p99 = port, 0, 0, [], []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self.over.is_set():
            answer = requests(self.port, URL, 2 * LIVE, 16, LIVE)
            self.sent += 2 * LIVE
            self.failed += failed(answer)
            self.p50.append(answer["latencyPercentiles"]["p50"] * 1e3)
            self.p99.append(answer["latencyPercentiles"]["p99"] * 1e3)

    def stop(self) -> float:
        """Ends it: the median of its loads' 99th percentiles, in ms. The first load saw the change, the last one its end."""
        self.over.set()
        self.thread.join()
        inner = self.p99[1:-1] or self.p99
        return statistics.median(inner)


def alone(port: int, seconds: float = 10) -> "Live":
    live = Live(port)
    time.sleep(seconds)
    live.stop()
    return live


def compare(before: "Live", during: "Live") -> str:
    inner = lambda values: statistics.median(values[1:-1] or values)  # noqa: E731
    b, d = inner(before.p99), inner(during.p99)
    return (f"live traffic, {LIVE} requests/s: p99 {b:.2f} ms before, {d:.2f} ms meanwhile (worst load {max(during.p99):.2f}): {d / b:.2f}×; "
            f"p50 {inner(before.p50):.2f} and {inner(during.p50):.2f} ms; {before.failed + during.failed} failed")


def fill(port: int, n: int, url: str = URL) -> None:
    """As many exchanges as fast as they go; all must be answered."""
    answer = requests(port, url, n, 64, 0)
    if bad := failed(answer):
        raise SystemExit(f"{bad} of {n} requests failed during the outage: {answer['errorDistribution']}")


def catch_up(ours: "stack.Ours", port: int, exchanges: int = 200_000) -> None:
    """Postgres frozen while exchanges are captured, then back beside live traffic."""
    ours.proxy("catch-up", port)
    api, service = Api(ours), ours.get("catch-up")["id"]
    fill(port, 5_000)
    before = alone(port)
    ours.drained("catch-up", 5_000 + before.sent)
    start = api.status(service)["stored"]
    pids = ours.pids("catch-up")
    postgres = pids["postgres"]
    freeze(postgres[::-1])  # the postmaster last: it would notice that a child has stopped
    try:
        fill(port, exchanges)
        kept = stack.size(ours.data / "spool")
        cpu = {k: stack.cpu_us(v) for k, v in pids.items()}
        live = Live(port)
    finally:
        thaw(postgres)
    begin = time.monotonic()
    while (status := api.status(service))["stored"] - start < exchanges:
        time.sleep(0.1)
    took, stored = time.monotonic() - begin, status["stored"] - start
    cpu = {k: (stack.cpu_us(v) - cpu[k]) / stored for k, v in pids.items()}
    live.stop()
    print(f"\ncatch-up after an outage of Postgres, {exchanges} exchanges of 1 KiB ({kept / 2**20:.0f} MiB in the spool): "
          f"{stored / took:.0f} exchanges/s (wanted ≥10,000), {took:.1f} s")
    print(f"  {compare(before, live)} (wanted <2)")
    print("  CPU µs per exchange stored, live traffic included: " + ", ".join(f"{k} {v:.1f}" for k, v in cpu.items()))
    ours.drained("catch-up", 5_000 + before.sent + exchanges + live.sent)


class Peak:
    """Largest RSS in MiB of the processes that `find` names, while it runs."""

    def __init__(self, find) -> None:
        self.find, self.peaks, self.over = find, {}, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        while not self.over.wait(0.05):
            for name, pid in self.find():
                try:
                    self.peaks[name] = max(self.peaks.get(name, 0), stack.rss_mib(pid))
                except (FileNotFoundError, ProcessLookupError, TypeError):
                    pass  # it has ended

    def stop(self) -> dict[str, float]:
        self.over.set()
        self.thread.join()
        return self.peaks


def workers(ours: "stack.Ours") -> dict[str, int]:
    """The control plane and what it has started, by what each does."""
    found = {"control plane": ours.process.pid}
    for pid in stack.children(ours.process.pid):
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except FileNotFoundError:
            continue
        if b"--drain-only" in argv:
            found["drain-only worker"] = pid
    return found


def backlog(ours: "stack.Ours", port: int, size: int = 1 << 30) -> None:
    """A control plane that starts with a GiB to store: of a worker that lived on, then of one that is dead."""
    ours.proxy("backlog", port, "--spool-limit", str(4 * size))
    service = ours.get("backlog")["id"]
    fill(port, 5_000)
    before = alone(port)
    for dead in (False, True):
        worker = ours.get("backlog")["pid"]
        status = Api(ours).status(service)
        ours.kill()
        try:
            n = 0
            while (kept := stack.size(ours.data / "spool")) < size:
                fill(port, 50_000)
                n += 50_000
            if dead:
                os.kill(worker, signal.SIGKILL)
        finally:
            begin = time.monotonic()
            ours.serve()
        peak = Peak(lambda: [*workers(ours).items(), *([] if dead else [("worker", worker)])])
        ours.ready()
        ready = time.monotonic() - begin
        live = Live(port)
        api = Api(ours)
        while api.status(service)["stored"] - status["stored"] < n:
            time.sleep(0.1)
        took = time.monotonic() - begin
        live.stop()
        new = stack.rss_mib(ours.get("backlog")["pid"], "VmHWM")
        peaks = peak.stop() | ({"new worker": new} if dead else {})
        print(f"\nstart with {kept / 2**20:.0f} MiB of spool ({n} exchanges) of a worker that {'is dead' if dead else 'lived on'}: ready after {ready:.1f} s, stored after {took:.1f} s")
        print("  peak RSS: " + ", ".join(f"{who} {mib:.0f} MiB" for who, mib in sorted(peaks.items())) + " (wanted <150 each)")
        print(f"  {compare(before, live)} (wanted: not delayed)")

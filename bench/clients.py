"""Clients that stay: what they open is to stay open, and everything they ask is to be answered."""
import asyncio, json, os, selectors, socket, subprocess, threading, time
from multiprocessing.managers import BaseManager

import stack

ECHO = 28003


def requests(port: int, url: str, n: int, conns: int, per_second: int) -> dict:
    """A load of n requests at a rate, 0 for as fast as they are answered: what oha says of it."""
    pace = ["-q", str(per_second)] if per_second else []
    argv = ["oha", "--no-tui", "-n", str(n), "-c", str(conns), *pace, "--insecure", "--output-format", "json", "-x", f"http://127.0.0.1:{port}", url]
    return json.loads(subprocess.run(argv, capture_output=True, text=True).stdout)


def failed(answer: dict) -> int:
    """How many of a load's requests were not answered 200."""
    return sum(n for status, n in answer["statusCodeDistribution"].items() if status != "200") + sum(answer["errorDistribution"].values())


class Clients:
    """Requests at a steady rate, kept connections, WebSockets, event streams, HTTP/2 streams and downloads, all through one proxy."""

    def __init__(self, port: int, per_second: int, kept: int = 10, websockets: int = 20, events: int = 10, streams: int = 8, downloads: int = 4) -> None:
        self.port, self.per_second = port, per_second
        self.over = threading.Event()
        self.answered, self.refused = 0, 0
        self.closed: list[str] = []
        self.messages, self.asked = [0] * websockets, [0] * kept
        self.read: dict[str, int] = {}
        self.selector = selectors.DefaultSelector()
        self.curls: list[subprocess.Popen] = []
        for i in range(events):
            self._events(f"event stream {i}")
        # Streams of one HTTP/2 connection, half of them downloads and half events. The origin keeps to the rate: with
        # --limit-rate beside --parallel, curl spins.
        paths = ["files/5g?rate=1m" if i % 2 else "sse" for i in range(streams)]
        self._curl("HTTP/2 streams", "--http2", "--parallel", "--fail-early", *(f"https://localhost:{stack.ORIGIN_TLS}/{path}" for path in paths))
        for i in range(downloads):
            self._curl(f"download {i}", f"http://127.0.0.1:{stack.ORIGIN_HTTP}/files/5g?rate=1m")
        self.counts = f"{kept} kept connections, {websockets} WebSockets, {events} event streams, {streams} HTTP/2 streams, {downloads} downloads"
        self.threads = [threading.Thread(target=run) for run in (self._requests, self._kept, self._sockets, self._streams)]
        for thread in self.threads:
            thread.start()

    def _events(self, name: str) -> None:
        s = socket.create_connection(("127.0.0.1", self.port))
        s.sendall(f"GET http://127.0.0.1:{stack.SINK}/sse HTTP/1.1\r\nHost: 127.0.0.1:{stack.SINK}\r\n\r\n".encode())
        self.read[name] = 0
        self.selector.register(s, selectors.EVENT_READ, name)

    def _curl(self, name: str, *args: str) -> None:
        argv = ["curl", "-sS", "-N", "--insecure", "-x", f"http://127.0.0.1:{self.port}", *args]
        curl = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.curls.append(curl)
        self.read[name] = 0
        self.selector.register(curl.stdout, selectors.EVENT_READ, name)

    def _streams(self) -> None:
        while not self.over.is_set():
            for key, _ in self.selector.select(0.1):
                try:
                    data = os.read(key.fd, 1 << 18)
                except OSError:
                    data = b""
                self.read[key.data] += len(data)
                if not data:
                    self.selector.unregister(key.fileobj)
                    self.closed.append(key.data)

    def _requests(self) -> None:
        while not self.over.is_set():
            answer = requests(self.port, f"http://127.0.0.1:{stack.ORIGIN_HTTP}/", 2 * self.per_second, 32, self.per_second)
            bad = failed(answer)
            self.refused += bad
            self.answered += 2 * self.per_second - bad

    def _kept(self) -> None:
        sockets = [socket.create_connection(("127.0.0.1", self.port)) for _ in self.asked]
        request = f"GET http://127.0.0.1:{stack.ORIGIN_HTTP}/ HTTP/1.1\r\nHost: 127.0.0.1:{stack.ORIGIN_HTTP}\r\n\r\n".encode()
        while not self.over.wait(0.02):
            for i, s in enumerate(sockets):
                try:
                    s.sendall(request)
                    answer = b""
                    while not answer.endswith(b'x"}') and (data := s.recv(65536)):
                        answer += data
                    if not answer.startswith(b"HTTP/1.1 200"):
                        raise ConnectionError(answer[:20])
                    self.asked[i] += 1
                except OSError:
                    self.closed.append(f"kept connection {i}")
                    return

    def _sockets(self) -> None:
        asyncio.run(self._echo())

    async def _echo(self) -> None:
        from websockets.asyncio.client import connect
        from websockets.asyncio.server import serve

        async def answer(ws) -> None:
            async for message in ws:
                await ws.send(message)

        async def one(i: int) -> None:
            try:
                async with connect(f"ws://127.0.0.1:{ECHO}/", proxy=f"http://127.0.0.1:{self.port}") as ws:
                    while not self.over.is_set():
                        await ws.send(f"message {self.messages[i]}")
                        await ws.recv()
                        self.messages[i] += 1
                        await asyncio.sleep(0.1)
            except Exception as error:  # noqa: BLE001 — whatever it is, the WebSocket did not stay
                self.closed.append(f"WebSocket {i}: {error}")

        async with serve(answer, "127.0.0.1", ECHO):
            await asyncio.gather(*(one(i) for i in range(len(self.messages))))

    def progress(self) -> list[int]:
        """How far each of them is that is to stay open."""
        return [*self.read.values(), *self.messages, *self.asked]

    def wait_until_all_run(self) -> None:
        end = time.monotonic() + 30
        while not (self.answered and all(self.progress())):
            if self.closed or time.monotonic() > end:
                raise RuntimeError(f"clients did not begin: {self.closed or self.progress()}")
            time.sleep(0.05)

    def stalled(self, patience: float = 10) -> int:
        """How many get nothing from now on."""
        before, end = self.progress(), time.monotonic() + patience
        while (stalled := sum(now <= then for now, then in zip(self.progress(), before))) and time.monotonic() < end:
            time.sleep(0.05)
        return stalled

    def stop(self) -> dict:
        """Ends them: what became of them."""
        self.over.set()
        for thread in self.threads:
            thread.join()
        for curl in self.curls:
            curl.kill()
            curl.wait()
        for key in list(self.selector.get_map().values()):
            self.selector.unregister(key.fileobj)
        return {"answered": self.answered, "refused": self.refused, "closed": self.closed, "counts": self.counts}


class Apart(BaseManager):
    """Makes clients in a process of their own, whose interpreter lock nobody else waits for."""


Apart.register("Clients", Clients)

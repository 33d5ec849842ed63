"""A thousand live updates under load: what a client notices of them, and how soon each is in force."""
import socket, ssl, time

import stack
from api import Api
from clients import Apart

HOST = "127.0.0.1"


def presented(port: int, context: ssl.SSLContext) -> bytes:
    """The certificate that a client gets through the proxy: the origin's own, or one that the proxy made."""
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.sendall(f"CONNECT {HOST}:{stack.ORIGIN_TLS} HTTP/1.1\r\nHost: {HOST}:{stack.ORIGIN_TLS}\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += s.recv(1)
        assert head.startswith(b"HTTP/1.1 200"), head
        with context.wrap_socket(s) as tls:
            return tls.getpeercert(binary_form=True) or b""


def live(ours: "stack.Ours", port: int, times: int = 1000, per_second: int = 2000) -> None:
    """Updates one after the other: hosts that are passed through, on and off. In force: the next connection shows it."""
    ours.proxy("updates", port)
    service, pid, api = ours.get("updates")["id"], ours.get("updates")["pid"], Api(ours)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    own = ssl.PEM_cert_to_DER_cert((stack.DIR / "origin.crt").read_text())
    returned, in_force, late, rss = [], [], 0, []
    with Apart() as apart:
        clients = apart.Clients(port, per_second)
        try:
            clients.wait_until_all_run()
            for i in range(times):
                through = i % 2 == 0
                begin = time.monotonic()
                api.pass_through(service, [HOST] if through else [])
                returned.append((time.monotonic() - begin) * 1e3)
                tries = 1
                while (presented(port, context) == own) != through:
                    tries += 1
                in_force.append((time.monotonic() - begin) * 1e3)
                late += tries > 1
                if i % 100 == 99:
                    rss.append(stack.rss_mib(pid))
            stalled = clients.stalled()
        finally:
            became = clients.stop()
    print(f"\n{times} live updates beside {per_second} requests/s, {became['counts']}:")
    print(f"  requests failed {became['refused']} of {became['answered'] + became['refused']} (wanted 0); closed {len(became['closed'])}, without anything afterwards {stalled} (wanted 0) {became['closed'][:3] or ''}")
    print(f"  worker's pid {'unchanged' if ours.get('updates')['pid'] == pid else 'CHANGED'}; its RSS after 100, 200, … updates: {', '.join(f'{mib:.1f}' for mib in rss)} MiB (wanted flat)")
    print(f"  call → return: median {stack.quantile(returned, 0.5):.1f} ms, p99 {stack.quantile(returned, 0.99):.1f} ms (wanted ≤20); not in force on return: {late} (wanted 0)")
    shows = [seen - back for seen, back in zip(in_force, returned)]
    print(f"  the connection that shows it, by itself: median {stack.quantile(shows, 0.5):.1f} ms, p99 {stack.quantile(shows, 0.99):.1f} ms")
    print(f"  call → seen in force, with the connection that shows it: median {stack.quantile(in_force, 0.5):.1f} ms, p99 {stack.quantile(in_force, 0.99):.1f} ms (wanted ≤20)")

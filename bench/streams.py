"""Server-sent events beside direct, and a thousand compressed WebSockets. Needs the `websockets` package."""
import asyncio, socket, time

import stack


def event_delays(port: int, via: int | None, count: int) -> list[float]:
    """Milliseconds from the origin's send to our receipt, `count` events."""
    target = f"http://127.0.0.1:{port}/sse" if via else "/sse"
    delays, rest = [], b""
    with socket.create_connection(("127.0.0.1", via or port)) as s:
        s.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        while len(delays) < count:
            rest += s.recv(65536)
            now = time.monotonic_ns()
            *lines, rest = rest.split(b"\n")
            delays += [(now - int(line[6:])) / 1e6 for line in lines if line.startswith(b"data: ")]
    return delays


def sse(ours: "stack.Ours", port: int, count: int = 1000) -> None:
    ours.proxy("sse", port)
    direct, through = event_delays(stack.SINK, None, count), event_delays(stack.SINK, port, count)
    later = stack.quantile(through, 0.99) - stack.quantile(direct, 0.99)
    print(f"\nSSE, {count} events: p99 {stack.quantile(direct, 0.99):.2f} ms direct, {stack.quantile(through, 0.99):.2f} ms through us: {later:.2f} ms later (wanted ≤5)")


async def _websockets(ours: "stack.Ours", port: int, connections: int, messages: int) -> None:
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import serve

    async def echo(ws) -> None:
        async for message in ws:
            await ws.send(message)

    text = '{"topic":"prices","seq":%d,"data":"' + "abcdefgh" * 60 + '"}'
    async with serve(echo, "127.0.0.1", 28002, backlog=2048, max_size=None):
        async def one(i: int):
            ws = await connect("ws://127.0.0.1:28002/", proxy=f"http://127.0.0.1:{port}", compression="deflate", open_timeout=60)
            for n in range(messages):
                await ws.send(text % n)
                assert await ws.recv() == text % n
            return ws

        sockets = []
        for batch in range(0, connections, 100):
            sockets += await asyncio.gather(*(one(i) for i in range(batch, batch + 100)))
        rss = stack.rss_mib(ours.get("websockets")["pid"])
        await asyncio.gather(*(ws.close() for ws in sockets))
    await asyncio.to_thread(ours.drained, "websockets", connections)
    rows = ours.ctl("websocket", "list", "--proxy", "websockets", "--limit", str(connections))
    whole = sum(r["messages_from_client"] >= messages and r["messages_from_server"] >= messages for r in rows)
    print(f"\n{connections} open compressed WebSockets, {messages} messages each way: worker {rss:.1f} MiB (wanted ≤128), recorded whole: {whole} of {connections}")


def websockets(ours: "stack.Ours", port: int, connections: int = 1000, messages: int = 10) -> None:
    ours.proxy("websockets", port)
    asyncio.run(_websockets(ours, port, connections, messages))

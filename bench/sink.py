"""An origin beside nginx: POST /sink swallows a body and answers its size; GET /sse sends timestamped events."""
import asyncio, sys, time


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.split("\r\n")
            named = {k.lower(): v.strip() for k, _, v in (f.partition(":") for f in fields if f)}
            if " /sse" in line:
                return await events(writer)
            size = 0
            if named.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if "content-length" in named:
                left = int(named["content-length"])
                while size < left:
                    got = len(await reader.read(min(left - size, 1 << 20)))
                    if not got:
                        return
                    size += got
            elif "transfer-encoding" in named:
                while n := int(await reader.readuntil(b"\r\n"), 16):
                    await reader.readexactly(n + 2)
                    size += n
                await reader.readuntil(b"\r\n")
            answer = str(size).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def events(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        event = b"data: %d\n\n" % time.monotonic_ns()
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        await writer.drain()
        await asyncio.sleep(0.01)


async def main() -> None:
    server = await asyncio.start_server(handle, "127.0.0.1", int(sys.argv[1]), limit=1 << 20)
    await server.serve_forever()


asyncio.run(main())

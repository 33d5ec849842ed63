"""One call of the API as grpc-web over one kept connection: proxyctl's own start would be most of what is measured."""
import http.client, struct
from pathlib import Path

import stack


def field(number: int, value: str | bytes) -> bytes:
    """A length-delimited field, by the Protocol Buffers encoding."""
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _fields(data: bytes) -> dict[int, int | bytes]:
    """The fields of a message, by number; the last of each."""
    found: dict[int, int | bytes] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte, at = data[at], at + 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            found[key >> 3] = varint()
        else:  # the other wire types that we meet are length-delimited
            size = varint()
            found[key >> 3], at = data[at : at + size], at + size
    return found


class Api:
    def __init__(self, ours: "stack.Ours") -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=30)
        token = Path(ours.data / "secrets/api.token").read_text().strip()
        self.headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "authorization": f"Bearer {token}"}

    def call(self, method: str, message: bytes) -> bytes:
        """Calls proxyplane.v1's `Service/Method` and returns the answer's message; anything but OK raises."""
        arguments = ("POST", f"/proxyplane.v1.{method}", b"\0" + struct.pack(">I", len(message)) + message, self.headers)
        try:
            self.connection.request(*arguments)
            answer = self.connection.getresponse()
        except ConnectionError:  # it was idle for too long
            self.connection.close()
            self.connection.request(*arguments)
            answer = self.connection.getresponse()
        body, status, said = answer.read(), answer.getheader("grpc-status"), b""
        while body:
            flags, size = struct.unpack(">BI", body[:5])
            frame, body = body[5 : 5 + size], body[5 + size :]
            if flags & 0x80:
                status = dict(line.split(":", 1) for line in frame.decode().split("\r\n") if line)["grpc-status"]
            else:
                said = frame
        if answer.status != 200 or (status or "").strip() != "0":
            raise RuntimeError(f"{method}: HTTP {answer.status}, grpc-status {status}")
        return said

    def pass_through(self, service: str, hosts: list[str]) -> None:
        """Sets the hosts whose TLS a proxy does not intercept."""
        capture = b"".join(field(3, host) for host in hosts)
        proxy = field(1, service) + field(11, capture)
        self.call("ProxyLifecycleService/UpdateProxyService", field(1, proxy) + field(2, field(1, "capture.passthrough_hosts")))

    def status(self, service: str) -> dict[str, int]:
        """What is observed of a proxy: exchanges stored, records not yet, bytes in its spool and how many there may be."""
        proxy = _fields(self.call("ProxyLifecycleService/GetProxyService", field(1, service)))[1]
        status = _fields(_fields(proxy)[16])
        return {name: status.get(number, 0) for name, number in (("stored", 10), ("backlog", 11), ("spool", 20), ("spool limit", 21))}

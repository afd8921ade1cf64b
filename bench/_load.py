"""Clients of a model server, in a process of their own: `python -m bench._load WIRE PORT SECONDS CLIENTS PATH < body`.

`rest`: raw sockets that ask again as soon as they were answered, all in one thread: a fifth of the cost of any HTTP
library, so that the server is what is measured. `grpc`: ready frames on one connection, likewise (grpc.aio's client
costs as much as its server), at a fixed pace (CLIENTS a second), each timed from the moment it was due, so that a
server that stalls is not spared. Prints one JSON object; times in milliseconds.
"""

import json
import select
import selectors
import socket
import sys
import time

from bench.figures import percentile

WARM_UP = 100
REFUSED_S = 10.0
"""What a refused gRPC request counts as."""


def request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def whole(got: bytes) -> bool:
    """Whether an answer has arrived; fails when it is none that was wanted."""
    head, end, body = got.partition(b"\r\n\r\n")
    if not end:
        return False
    if b" 200" not in head[:20]:
        raise RuntimeError(got.decode(errors="replace"))
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line[15:])
    return body.endswith(b"0\r\n\r\n")


def connect(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def alone(port: int, asked: bytes, seconds: float) -> list[float]:
    """One client."""
    times: list[float] = []
    with connect(port) as client:
        count, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end or count < WARM_UP * 2:
            begun = time.perf_counter()
            client.sendall(asked)
            got = client.recv(65_536)
            while not whole(got):
                got += client.recv(65_536)
            count += 1
            if count == WARM_UP:
                end = time.perf_counter() + seconds
            elif count > WARM_UP:
                times.append(time.perf_counter() - begun)
    return times


def together(port: int, asked: bytes, seconds: float, clients: int) -> list[float]:
    """Several clients, each with one request on its way."""
    times: list[float] = []
    with selectors.DefaultSelector() as ready:
        begun: dict[socket.socket, float] = {}
        got: dict[socket.socket, bytes] = {}
        for _ in range(clients):
            client = connect(port)
            ready.register(client, selectors.EVENT_READ)
            begun[client], got[client] = time.perf_counter(), b""
            client.sendall(asked)
        first = time.perf_counter()
        while (now := time.perf_counter()) < first + 0.5 + seconds:
            for key, _ in ready.select(1.0):
                woken = key.fileobj
                assert isinstance(woken, socket.socket)
                got[woken] += woken.recv(65_536)
                if whole(got[woken]):
                    if now > first + 0.5:
                        times.append(time.perf_counter() - begun[woken])
                    begun[woken], got[woken] = time.perf_counter(), b""
                    woken.sendall(asked)
        for client in begun:
            client.close()
    return times


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Of HTTP/2 (RFC 9113 §4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header that no table remembers (RFC 7541 §6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Http2:
    """One connection: unary gRPC requests as ready bytes, and which of them were answered."""

    DATA, HEADERS, RESET, SETTINGS, PING, AWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8

    def __init__(self, port: int, path: bytes, raw: bytes) -> None:
        self.link = connect(port)
        pseudo = b"\x83\x86\x04" + bytes([len(path)]) + path  # POST, http, :path
        told = literal(b"te", b"trailers") + literal(b"content-type", b"application/grpc")
        self._head = pseudo + b"\x01\x05bench" + told
        self._body = b"\0" + len(raw).to_bytes(4, "big") + raw
        self._stream, self._got, self._out = 1, b"", b""
        self._with_data: set[int] = set()
        windows = frame(self.SETTINGS, 0, 0, (4).to_bytes(2, "big") + (1 << 30).to_bytes(4, "big"))
        windows += frame(self.WINDOW, 0, 0, (1 << 30).to_bytes(4, "big"))
        self.link.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + windows)

    def ask(self) -> int:
        """The stream of a request that the next `flush` sends."""
        stream, self._stream = self._stream, self._stream + 2
        self._out += frame(self.HEADERS, 4, stream, self._head) + frame(self.DATA, 1, stream, self._body)
        return stream

    def flush(self) -> None:
        if self._out:
            self.link.sendall(self._out)
            self._out = b""

    def answered(self) -> list[tuple[int, bool]]:
        """Streams that ended, and whether with an answer. Blocks until something comes."""
        self._got += self.link.recv(1 << 18)
        ended: list[tuple[int, bool]] = []
        while len(self._got) >= 9 and len(self._got) >= 9 + (size := int.from_bytes(self._got[:3], "big")):
            kind, flags = self._got[3:5]
            stream, payload = int.from_bytes(self._got[5:9], "big"), self._got[9 : 9 + size]
            self._got = self._got[9 + size :]
            if kind in {self.SETTINGS, self.PING} and not flags & 1:
                self._out += frame(kind, 1, 0, payload if kind == self.PING else b"")
            elif kind == self.AWAY:
                raise RuntimeError(f"the server ended: {payload!r}")
            elif kind == self.DATA:
                self._with_data.add(stream)
            if kind == self.RESET or (kind in {self.DATA, self.HEADERS} and flags & 1):
                ended.append((stream, stream in self._with_data))
                self._with_data.discard(stream)
        return ended


def paced(port: int, raw: bytes, seconds: float, rate: float) -> list[float]:
    """gRPC requests, `rate` a second whatever the answers do."""
    times: list[float] = []
    client = Http2(port, b"/inference.GRPCInferenceService/ModelInfer", raw)
    for _ in range(WARM_UP):
        waits = {client.ask()}
        client.flush()
        while waits:
            waits -= {stream for stream, _ in client.answered()}
            client.flush()
    first, count = time.perf_counter(), int(seconds * rate)
    due: dict[int, float] = {}
    asked = 0
    while asked < count or due:
        now = time.perf_counter()
        while asked < count and now >= first + asked / rate:
            due[client.ask()] = first + asked / rate
            asked += 1
        client.flush()
        next_in = first + asked / rate - time.perf_counter() if asked < count else REFUSED_S
        if select.select([client.link], [], [], max(0.0, next_in))[0]:
            for stream, well in client.answered():
                times.append(time.perf_counter() - due.pop(stream) if well else REFUSED_S)
        elif asked == count:
            times += [REFUSED_S] * len(due)
            break
    return times


def main() -> None:
    wire, port, seconds, clients, path = sys.argv[1:]
    body = sys.stdin.buffer.read()
    if wire == "grpc":
        times = paced(int(port), body, float(seconds), float(clients))
    elif clients == "1":
        times = alone(int(port), request(path, body), float(seconds))
    else:
        times = together(int(port), request(path, body), float(seconds), int(clients))
    told = {name: percentile(times, share) * 1e3 for name, share in (("p50", 0.5), ("p99", 0.99))}
    print(json.dumps({**told, "per_s": len(times) / float(seconds), "count": len(times)}))


if __name__ == "__main__":
    main()

"""Clients of a model server, in a process of their own: `python -m bench._load WIRE PORT SECONDS CLIENTS PATH < body`.

`rest`: raw sockets that ask again as soon as they were answered, all in one thread: a fifth of the cost of any HTTP
library, so that the server is what is measured. `grpc`: requests at a fixed pace (CLIENTS a second), each timed from
the moment it was due, so that a server that stalls is not spared. Prints one JSON object; times in milliseconds.
"""

import asyncio
import json
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


async def paced(port: int, raw: bytes, seconds: float, rate: float) -> list[float]:
    """gRPC requests, `rate` a second whatever the answers do."""
    import grpc

    times: list[float] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for _ in range(WARM_UP):
            await ask(raw)

        async def one(due: float) -> None:
            try:
                await ask(raw)
                times.append(time.perf_counter() - due)
            except grpc.RpcError:
                times.append(REFUSED_S)

        first = time.perf_counter()
        waiting = set()
        for number in range(int(seconds * rate)):
            due = first + number / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            task = asyncio.create_task(one(due))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        await asyncio.gather(*waiting)
    return times


def main() -> None:
    wire, port, seconds, clients, path = sys.argv[1:]
    body = sys.stdin.buffer.read()
    if wire == "grpc":
        times = asyncio.run(paced(int(port), body, float(seconds), float(clients)))
    elif clients == "1":
        times = alone(int(port), request(path, body), float(seconds))
    else:
        times = together(int(port), request(path, body), float(seconds), int(clients))
    told = {name: percentile(times, share) * 1e3 for name, share in (("p50", 0.5), ("p99", 0.99))}
    print(json.dumps({**told, "per_s": len(times) / float(seconds), "count": len(times)}))


if __name__ == "__main__":
    main()

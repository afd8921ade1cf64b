"""HTTP/1.1 on real sockets: requests in pieces, in a row, too large, too slow, and bytes that are none."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.serve.oip import http
from boucle.serve.oip.answering import Limits
from boucle.serve.oip.server import ModelServer
from tests.serve.offered import answering, columns

BODY = json.dumps(columns()).encode()
PATH = b"/v2/models/tiny/infer"


def post(body: bytes = BODY, *headers: bytes, path: bytes = PATH) -> bytes:
    told = b"".join(one + b"\r\n" for one in (*headers, b"content-length: %d" % len(body)))
    return b"POST %s HTTP/1.1\r\nHost: here\r\n%s\r\n%s" % (path, told, body)


@contextmanager
def running(server: ModelServer) -> Iterator[ModelServer]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    made = answering(tmp_path_factory.mktemp("models"), limits=Limits(body=200_000, seconds=5))
    with running(ModelServer(made, http=("127.0.0.1", 0))) as server:
        yield server


class Client:
    """A socket, and the answers on it."""

    def __init__(self, server: ModelServer) -> None:
        assert server.http is not None
        self.link = socket.create_connection(server.http, timeout=20)
        self._got = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.link.close()

    def send(self, raw: bytes) -> None:
        self.link.sendall(raw)

    def _more(self) -> None:
        part = self.link.recv(65_536)
        if not part:
            raise EOFError(self._got)
        self._got += part

    def head(self) -> tuple[int, dict[str, str]]:
        while b"\r\n\r\n" not in self._got:
            self._more()
        told, _, self._got = self._got.partition(b"\r\n\r\n")
        first, *lines = told.decode().split("\r\n")
        return int(first.split()[1]), dict(one.split(": ", 1) for one in lines)

    def reply(self) -> tuple[int, dict[str, str], bytes]:
        status, headers = self.head()
        size = int(headers["content-length"])
        while len(self._got) < size:
            self._more()
        body, self._got = self._got[:size], self._got[size:]
        return status, headers, body

    def ends(self) -> bool:
        """Whether the server closes, with nothing more said."""
        try:
            self._more()
        except (EOFError, ConnectionError):
            return True
        return False


def test_a_request_in_single_bytes(server: ModelServer) -> None:
    with Client(server) as client:
        client.link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw = post()
        for at in range(len(raw)):
            client.send(raw[at : at + 1])
        status, headers, body = client.reply()
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body)["outputs"][1]["data"] == [12]


def test_many_requests_at_once_are_answered_in_their_order(server: ModelServer) -> None:
    """More than wait at once, long ones between short ones."""
    asked = [columns(300 if number % 7 == 3 else 1, id=str(number)) for number in range(60)]
    served = server._answering.shelf.find("tiny")
    assert served is not None
    served.row_s = 1e-5
    with Client(server) as client:
        client.send(b"".join(post(json.dumps(one).encode()) for one in asked))
        told = [json.loads(client.reply()[2])["id"] for _ in asked]
    assert told == [one["id"] for one in asked]
    assert server._answering.counts.waiting == 0


def test_a_chunked_body_and_what_else_clients_say(server: ModelServer) -> None:
    with Client(server) as client:
        half = len(BODY) // 2
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:half], BODY[half:], b""))
        client.send(b"POST %s HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%s" % (PATH, chunks))
        assert client.reply()[0] == 200
        client.send(b"GET /v2/health/live?now HTTP/1.1\r\n\r\n")
        assert client.reply()[::2] == (200, b'{"live": true}')
        client.send(b"GET http://here:80/v2/health/live HTTP/1.1\r\n\r\n")
        assert client.reply()[0] == 200
        client.send(b"HEAD /v2/health/live HTTP/1.1\r\n\r\n")
        assert client.head()[1]["content-length"] == "14"
        client.send(post(BODY, b"Expect: 100-continue"))
        assert client.head()[0] == 100
        assert client.reply()[0] == 200
        upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        client.send(b"GET /v2/health/live HTTP/1.1\r\n%s\r\n" % upgrade + post())
        assert [client.reply()[0] for _ in range(2)] == [200, 200]
        client.send(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
        assert client.reply()[1]["connection"] == "close"
        assert client.ends()


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"\x16\x03\x01 TLS where there is none\r\n\r\n", 400, "B670"),
        (b"GET /v2 HTTP/1.1\r\nX: " + b"x" * 70_000, 400, "B670"),
        (b"POST /v2 HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n", 400, "B670"),
        (b"POST %s HTTP/1.1\r\nContent-Length: 200001\r\n\r\n" % PATH, 413, "B675"),
        (
            b"POST %s HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n30D41\r\n" % PATH + b" " * 200_001,
            413,
            "B675",
        ),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch, raw: bytes, status: int, code: str
) -> None:
    monkeypatch.setattr(http, "LINGERS_S", 0.05)
    with Client(server) as client:
        client.send(raw)
        told = client.reply()
        assert (told[0], told[1]["connection"]) == (status, "close")
        assert code in json.loads(told[2])["error"]
        client.send(b"more")
        assert client.ends()
    assert server._answering.counts.waiting == 0


def test_a_body_that_does_not_come_keeps_no_place(tmp_path: Path) -> None:
    made = answering(tmp_path, limits=Limits(seconds=0.1, waiting=1))
    server = ModelServer(made, http=("127.0.0.1", 0))
    with running(server), Client(server) as slow, Client(server) as other:
        slow.send(post()[:-5])
        while made.counts.waiting == 0:
            time.sleep(0.002)
        other.send(post())
        assert other.reply()[0] == 429, "the one place is taken"
        assert slow.reply()[0] == 504
        assert made.counts.waiting == 0
        other.send(post())
        assert other.reply()[0] == 200, "on the same connection"
        page = made.counts.exposition(made.shelf, None).decode()
    assert 'boucle_infer_refused_total{code="B672",wire="rest"} 1.0' in page
    assert 'boucle_infer_refused_total{code="B673",wire="rest"} 1.0' in page


def test_who_goes_away_keeps_no_place(server: ModelServer) -> None:
    with Client(server) as client:
        client.send(post()[:-5])
        while server._answering.counts.waiting == 0:
            time.sleep(0.002)
    until = time.monotonic() + 10
    while server._answering.counts.waiting and time.monotonic() < until:
        time.sleep(0.002)
    assert server._answering.counts.waiting == 0


def test_who_does_not_read_keeps_only_his_own_answers(tmp_path: Path) -> None:
    """Answers that nobody takes, on sockets that hold little: others are served, and all arrive in the end."""
    parameters = {"binary_data_size": 2_400}
    whole = {"name": "features", "shape": [300, 2], "datatype": "FP32", "parameters": parameters}
    head = json.dumps({"inputs": [whole], "parameters": {"binary_data_output": True}}).encode()
    raw = post(head + b"\0" * 2_400, b"Inference-Header-Content-Length: %d" % len(head))
    server = ModelServer(answering(tmp_path), http=("127.0.0.1", 0))
    assert server._socket is not None
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        server._socket.setsockopt(socket.SOL_SOCKET, option, 16_384)
    with running(server), Client(server) as lazy, Client(server) as other:
        lazy.link.settimeout(0.3)
        sent, stream = 0, raw * 6_000
        with suppress(TimeoutError):
            while sent < len(stream):
                sent += lazy.link.send(stream[sent : sent + 65_536])
        assert sent < len(stream), "the server reads no more than it can answer"
        other.send(post())
        assert other.reply()[0] == 200
        lazy.link.settimeout(20)
        complete = sent // len(raw)
        assert {lazy.reply()[0] for _ in range(complete)} <= {200, 504}, "504: its deadline passed meanwhile"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.binary(max_size=60)
        | st.sampled_from(
            [post(), post()[:-3], b"\r\n", b"GET / HTTP/1.1\r\n", b"0\r\n\r\n", b"Host: x\r\n"]
        ),
        max_size=6,
    )
)
def test_no_bytes_whatever_break_the_server(server: ModelServer, parts: list[bytes]) -> None:
    with Client(server) as client:
        for part in parts:
            try:
                client.send(part)
            except ConnectionError:
                break
    with Client(server) as client:
        client.send(post())
        assert client.reply()[0] == 200

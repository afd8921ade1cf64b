"""Events reach a real receiver, in order and once, whatever becomes of it meanwhile."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from boucle.catalog.export import Exporter, ExportThread
from boucle.catalog.lineage import Lineage, events
from boucle.errors import BoucleError, Unavailable
from tests.catalog.test_lineage import HandClock

RECEIVER = """
import http.server, json, pathlib, sys
port, kept, status = int(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        code = int(status.read_text()) if status.exists() else 201
        if code == 201:
            with kept.open("ab") as file:
                file.write(json.dumps([self.path, self.headers["authorization"], json.loads(body)]).encode() + b"\\n")
        self.send_response(code)
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
print("up", flush=True)
server.serve_forever()
"""


class Receiver:
    """A process of its own that keeps what it is sent."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._port, self._kept, self._status = port, folder / "kept.ndjson", folder / "status"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        words = [sys.executable, "-c", RECEIVER, str(self._port), str(self._kept), str(self._status)]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "up\n"

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
        self._process = None

    def answers(self, code: int) -> None:
        self._status.write_text(str(code))

    @property
    def kept(self) -> list[tuple[str, str | None, dict[str, object]]]:
        if not self._kept.exists():
            return []
        return [tuple(json.loads(line)) for line in self._kept.read_bytes().splitlines()]


@pytest.fixture
def receiver(tmp_path: Path, free_port: int) -> Iterator[Receiver]:
    (tmp_path / "receiver").mkdir()
    one = Receiver(tmp_path / "receiver", free_port)
    yield one
    one.stop()


def journal(folder: Path, runs: int) -> Lineage:
    lineage = Lineage(folder, HandClock())
    for number in range(runs):
        lineage.start(f"job-{number}").complete()
    return lineage


def test_everything_arrives_once_and_in_order(tmp_path: Path, receiver: Receiver) -> None:
    journal(tmp_path / "lineage", 3)
    receiver.start()
    exporter = Exporter(tmp_path / "lineage", receiver.url, key="token")
    assert exporter.waiting() == 6
    assert exporter.step() == 6
    assert [body for _, _, body in receiver.kept] == list(events(tmp_path / "lineage"))
    assert {(path, key) for path, key, _ in receiver.kept} == {("/api/v1/lineage", "Bearer token")}
    assert (exporter.state.sent, exporter.state.refused, exporter.waiting()) == (6, 0, 0)
    # Another life goes on where this one ended.
    journal(tmp_path / "lineage", 1)
    again = Exporter(tmp_path / "lineage", receiver.url)
    assert (again.step(), again.state.sent, len(receiver.kept)) == (2, 8, 8)


def test_while_the_receiver_is_away_the_journal_keeps_everything(tmp_path: Path, receiver: Receiver) -> None:
    journal(tmp_path / "lineage", 2)
    exporter = Exporter(tmp_path / "lineage", receiver.url)
    with pytest.raises(Unavailable) as caught:
        exporter.step()
    assert caught.value.code == "B566"
    receiver.start()
    receiver.answers(503)
    with pytest.raises(Unavailable):
        exporter.step()
    assert (exporter.state.sent, exporter.waiting()) == (0, 4)
    receiver.answers(201)
    assert exporter.step() == 4
    assert len(receiver.kept) == 4


def test_what_is_refused_for_good_is_kept_apart_and_the_next_is_sent(
    tmp_path: Path, receiver: Receiver
) -> None:
    journal(tmp_path / "lineage", 1)
    receiver.start()
    receiver.answers(422)
    exporter = Exporter(tmp_path / "lineage", receiver.url)
    assert exporter.step() == 2
    assert (exporter.state.sent, exporter.state.refused) == (0, 2)
    assert len((tmp_path / "lineage" / "refused.ndjson").read_bytes().splitlines()) == 2
    receiver.answers(201)
    journal(tmp_path / "lineage", 1)
    assert exporter.step() == 2
    assert len(receiver.kept) == 2


def until(done: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.02)
    return done()


def test_a_thread_sends_beside_the_loop_and_survives_an_outage(tmp_path: Path, receiver: Receiver) -> None:
    lineage = journal(tmp_path / "lineage", 1)
    receiver.start()
    thread = ExportThread(Exporter(tmp_path / "lineage", receiver.url), every=0.02)
    thread.start()
    assert until(lambda: len(receiver.kept) == 2)
    receiver.stop()
    lineage.start("during").complete()
    assert until(lambda: thread.failure != "")
    receiver.start()
    thread.close()
    assert [body["job"]["name"] for _, _, body in receiver.kept][2:] == ["during", "during"]  # type: ignore[index]


def test_into_a_file(tmp_path: Path) -> None:
    journal(tmp_path / "lineage", 2)
    Exporter(tmp_path / "lineage", f"file:{tmp_path}/out/all.ndjson").step()
    told = [json.loads(line) for line in (tmp_path / "out" / "all.ndjson").read_bytes().splitlines()]
    assert told == list(events(tmp_path / "lineage"))


def test_a_torn_cursor_sends_again_rather_than_never(tmp_path: Path, receiver: Receiver) -> None:
    journal(tmp_path / "lineage", 1)
    receiver.start()
    Exporter(tmp_path / "lineage", receiver.url).step()
    (cursor,) = (tmp_path / "lineage").glob("export-*.json")
    cursor.write_bytes(b'{"file": "20')
    assert Exporter(tmp_path / "lineage", receiver.url).step() == 2


@pytest.mark.parametrize("to", ["ftp://x/y", "", "http://", "nowhere"])
def test_an_address_of_another_kind_is_refused(tmp_path: Path, to: str) -> None:
    with pytest.raises(BoucleError) as caught:
        Exporter(tmp_path, to)
    assert caught.value.code == "B565"

"""Events and files that leave by themselves: counted, tried again, refused for good, killed and resumed."""

import base64
import hashlib
import hmac
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.bus.broker import Broker
from boucle.bus.log import EventLog
from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.loop.outputs import Outputs, Port, states_of
from boucle.outlet.carriers import LogCarrier, Webhook, carrier, secret_of
from boucle.outlet.courier import Courier, Delivered, read_delivered
from boucle.outlet.exporter import Exported, Exporter, read_exported
from boucle.outlet.notes import ColumnNote, TableNote
from boucle.outlet.ports import OutputPort
from boucle.testing.clock import ManualClock
from boucle.testing.conformance.table import readings
from tests.bus.benches import mqtt_source
from tests.outlet.receiver import Receiver, receiver

START = 1_790_000_000_000_000_000
HOUR = 3600 * 10**9


@pytest.fixture
def table(tmp_path: Path) -> LakeTable:
    """Two versions of four rows."""
    one = LakeTable(tmp_path / "lake" / "silver" / "features")
    grow(one, 0, 8, each=4)
    return one


def grow(table: LakeTable, first: int, last: int, each: int = 4) -> None:
    for start in range(first, last, each):
        block = readings(start, each)
        table.append(Block("features", block.rows, 0, Position("features", start + each)))


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def whole(state: Delivered) -> tuple[int, int, int, int]:
    assert state.taken == state.delivered + state.pending + state.dead
    return state.taken, state.delivered, state.pending, state.dead


def patiently(courier: Courier, until: int, patience: float = 10.0) -> None:
    """Steps, with its own pauses, until so many are handled."""
    end = time.monotonic() + patience
    while courier.state.delivered + courier.state.dead < until and time.monotonic() < end:
        courier.step()
        time.sleep(0.01)


def test_a_log_gets_every_row_once_and_a_restart_goes_on(table: LakeTable, tmp_path: Path) -> None:
    work, out = tmp_path / "outputs" / "news", tmp_path / "events"
    courier = Courier(table, "press", LogCarrier(out, "press/rows"), work)
    assert courier.step() == 8
    assert courier.step() == 0
    courier.close()
    grow(table, 8, 12)
    again = Courier(table, "press", carrier(f"file://{out}", "press/rows", "c"), work)
    assert again.step() == 4
    again.close()
    assert whole(again.state) == (12, 12, 0, 0)
    assert read_delivered(work) == again.state
    told = [
        json.loads(row)
        for block in EventLog(out, stream="press/rows").read()
        for row in block.rows["payload"].to_pylist()
    ]
    assert [one["id"] for one in told] == [f"{version}.{row}" for version in (1, 2, 3) for row in range(4)]
    assert {one["specversion"] for one in told} == {"1.0"}
    assert sorted(one["data"]["value"] for one in told) == [float(row) for row in range(12)]


def test_a_webhook_is_signed_and_knows_an_event_again(
    table: LakeTable, tmp_path: Path, hook: Receiver
) -> None:
    courier = Courier(table, "press", Webhook(hook.url, secret="key"), tmp_path / "news")
    assert courier.step() == 8
    assert [one["id"] for one in hook.taken] == [f"{version}.{row}" for version in (1, 2) for row in range(4)]
    first = hook.heads[0]
    assert first["Content-Type"] == "application/cloudevents+json"
    assert first["Idempotency-Key"] == first["webhook-id"] == "press.features.1.0"
    assert len({one["Idempotency-Key"] for one in hook.heads}) == 8
    body = json.dumps(hook.taken[0], ensure_ascii=False).encode()
    signed = f"{first['webhook-id']}.{first['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.digest(b"key", signed, hashlib.sha256)).decode()
    assert first["webhook-signature"] == f"v1,{wanted}"
    courier.close()


def test_who_is_away_is_waited_for_and_nothing_is_a_dead_letter(
    table: LakeTable, tmp_path: Path, hook: Receiver
) -> None:
    hook.busy = True
    courier = Courier(table, "press", Webhook(hook.url, attempts=1), tmp_path / "news")
    for _ in range(3):
        courier.step()
    assert whole(courier.state) == (4, 0, 4, 0)
    assert "B858" in courier.state.failure
    assert hook.calls == 1, "it is left alone for a moment"
    hook.busy = False
    patiently(courier, 8)
    assert whole(courier.state) == (8, 8, 0, 0)
    assert courier.state.failure == ""
    courier.close()
    nobody = Courier(table, "press", Webhook("http://127.0.0.1:9/", timeout=2.0), tmp_path / "other")
    nobody.step()
    assert whole(nobody.state) == (4, 0, 4, 0)


def test_what_is_refused_for_good_is_a_dead_letter(table: LakeTable, tmp_path: Path, hook: Receiver) -> None:
    hook.answers = {"1.1": [400], "1.2": [500, 500, 500], "2.0": [500, 200], "2.3": [410]}
    courier = Courier(table, "press", Webhook(hook.url, attempts=3), tmp_path / "news")
    patiently(courier, 8)
    assert whole(courier.state) == (8, 5, 0, 3)
    courier.close()
    letters = [
        json.loads(line.partition(" ")[2])
        for line in (tmp_path / "news" / "dead.ndjson").read_text().splitlines()
    ]
    assert [(one["id"], one["why"][:25]) for one in letters] == [
        ("press.features.1.1", "the receiver answered 400"),
        ("press.features.1.2", "the receiver answered 500"),
        ("press.features.2.3", "the receiver answered 410"),
    ]
    assert letters[1]["why"].endswith("3 times")
    assert letters[0]["event"]["id"] == "1.1"
    assert [one["id"] for one in hook.taken] == ["1.0", "1.3", "2.0", "2.1", "2.2"]


def test_killed_and_resumed_nothing_is_lost(tmp_path: Path, hook: Receiver) -> None:
    table = LakeTable(tmp_path / "lake" / "silver" / "features")
    grow(table, 0, 60, each=20)
    program = (
        "import sys\nfrom pathlib import Path\nfrom boucle.lake.delta import LakeTable\n"
        "from boucle.outlet.carriers import Webhook\nfrom boucle.outlet.courier import Courier\n"
        "courier = Courier(LakeTable(sys.argv[1]), 'press', Webhook(sys.argv[2]), Path(sys.argv[3]))\n"
        "courier.step()\ncourier.close()\n"
    )
    words = [sys.executable, "-c", program, str(table.folder), hook.url, str(tmp_path / "news")]
    process = subprocess.Popen(words)
    while len(hook.taken) < 27 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(words, check=True, timeout=60)
    ids = [one["id"] for one in hook.taken]
    wanted = [f"{version}.{row}" for version in (1, 2, 3) for row in range(20)]
    assert sorted(set(ids), key=wanted.index) == wanted
    assert len(ids) <= 60 + Webhook.at_once, "only what was on its way when it was killed comes twice"
    state = read_delivered(tmp_path / "news")
    assert state is not None
    assert whole(state) == (60, 60, 0, 0)


def test_to_a_broker(table: LakeTable, tmp_path: Path) -> None:
    with Broker.start(kind="amqtt") as broker:
        source = mqtt_source(broker.port, "far", queue_blocks=100)
        source.open()
        end = time.monotonic() + 10
        while source.state() != "connected" and time.monotonic() < end:
            time.sleep(0.02)
        out = carrier(f"mqtt://127.0.0.1:{broker.port}/press/events/vibration?qos=1", "", "boucle-press-news")
        courier = Courier(table, "press", out, tmp_path / "news")
        patiently(courier, 8)
        assert whole(courier.state) == (8, 8, 0, 0)
        found: set[str] = set()
        while len(found) < 8 and time.monotonic() < end:
            block = source.poll(0.2)
            if block is not None:
                found |= {json.loads(one)["id"] for one in block.rows["payload"].to_pylist()}
        assert len(found) == 8
        courier.close()
        source.close()


def test_a_table_that_breaks_its_contract_is_not_given(
    table: LakeTable, tmp_path: Path, hook: Receiver
) -> None:
    note = TableNote(columns={"pressure": ColumnNote("number")})
    courier = Courier(table, "press", Webhook(hook.url), tmp_path / "news", note)
    assert courier.step() == 0
    assert "B845" in courier.state.failure
    assert hook.calls == 0
    exporter = Exporter(table, tmp_path / "lake", tmp_path / "dump", ManualClock(START), note=note)
    assert not exporter.step()
    assert "B845" in exporter.state.failure


def test_files_are_written_when_due_and_the_old_ones_go(table: LakeTable, tmp_path: Path) -> None:
    clock = ManualClock(START)
    dump = tmp_path / "dump"

    def exporter() -> Exporter:
        return Exporter(table, tmp_path / "lake", dump, clock, every=3600, keep=2)

    one = exporter()
    assert one.step()
    assert not one.step()
    for hours in (1, 2):
        grow(table, 8 * hours, 8 * hours + 4)
        assert not exporter().step(), "not yet, also for one that was started anew"
        clock.advance(HOUR / 1e9)
        assert exporter().step()
    assert sorted(path.name for path in (dump / "features").iterdir()) == ["3", "4"]
    state = read_exported(dump)
    assert state == Exported(4, 16, 3, clock.now())
    parts = list((dump / "features" / "4").glob("part-*.parquet"))
    assert sum(pq.read_metadata(part).num_rows for part in parts) == 16


def test_all_ports_of_a_product_run_and_one_that_cannot_holds_back_none(
    table: LakeTable, tmp_path: Path, hook: Receiver
) -> None:
    def port(name: str, kind: str, to: str = "", **settings: str) -> Port:
        one = OutputPort(name, kind, settings.pop("table", "features"), "1.0.0", settings)
        return Port(one, "press", to, str(tmp_path / "run" / "outputs" / name), TableNote())

    ports = [
        port("signed", "events", hook.url, secret="BOUCLE_NOT_THERE"),
        port("gone", "events", hook.url, table="nothing"),
        port("news", "events", hook.url),
        port("dump", "files", format="csv"),
    ]
    outputs = Outputs(ports, str(tmp_path / "lake"), ManualClock(START))
    stop = threading.Event()
    thread = threading.Thread(target=outputs.run, args=(stop,))
    thread.start()
    end = time.monotonic() + 10
    while len(hook.taken) < 8 and time.monotonic() < end:
        time.sleep(0.02)
    grow(table, 8, 12)
    stop.set()
    thread.join()
    assert len(hook.taken) == 12, "what came last is still delivered"
    states = states_of(tmp_path / "run")
    assert sorted(states) == ["dump", "news"]
    news, dump = states["news"], states["dump"]
    assert isinstance(news, Delivered)
    assert whole(news) == (12, 12, 0, 0)
    assert isinstance(dump, Exported)
    assert dump.rows in {8, 12}


def test_rows_nobody_can_name_any_more_are_counted(table: LakeTable, tmp_path: Path, hook: Receiver) -> None:
    for file in table.files(1):
        Path(file.path).unlink()
    courier = Courier(LakeTable(table.folder), "press", Webhook(hook.url), tmp_path / "news")
    courier.step()
    assert courier.state.gone == 1
    assert whole(courier.state) == (4, 4, 0, 0)
    assert courier.state.version == table.version
    courier.close()


def test_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUCLE_HOOK", "key")
    assert secret_of("BOUCLE_HOOK") == "key"
    assert secret_of("") == ""
    with pytest.raises(BoucleError, match="B859"):
        secret_of("BOUCLE_NOT_THERE")


@given(st.binary(max_size=80) | st.text(max_size=40).map(lambda one: json.dumps({"version": one}).encode()))
@settings(max_examples=50, deadline=None)
def test_a_state_that_is_none_is_refused(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    folder = tmp_path_factory.mktemp("port")
    (folder / "state.json").write_bytes(text)
    read_exported(folder)
    known = read_delivered(folder)
    table = LakeTable(folder / "silver" / "features")
    if known is None:
        with pytest.raises(BoucleError, match="B857"):
            Courier(table, "press", Webhook("http://127.0.0.1:9/"), folder)
    else:
        Courier(table, "press", Webhook("http://127.0.0.1:9/"), folder)

"""Dead letters sent again: with the ids they had, counted once, whoever is killed in between."""

import fcntl
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.cli.main import main
from boucle.lake.delta import LakeTable
from boucle.outlet.carriers import Webhook
from boucle.outlet.courier import Courier, Delivered, read_delivered
from boucle.outlet.deadletters import Postman, ask, chosen, letters, unanswered
from boucle.testing.conformance.table import readings
from tests.outlet.receiver import Receiver, receiver

ROWS = 12


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def table(tmp_path: Path) -> LakeTable:
    one = LakeTable(tmp_path / "run" / "lake" / "silver" / "features")
    block = readings(0, ROWS)
    one.append(Block("features", block.rows, 0, Position("features", ROWS)))
    return one


@pytest.fixture
def folder(table: LakeTable, tmp_path: Path, hook: Receiver) -> Path:
    """A port of which every third event was refused for good."""
    hook.answers = {f"1.{row}": [410] for row in range(0, ROWS, 3)}
    place = tmp_path / "run" / "outputs" / "news"
    courier = Courier(table, "press", Webhook(hook.url, attempts=1), place)
    courier.step()
    courier.close()
    assert whole(courier.state) == (ROWS, 8, 0, 4)
    return place


def whole(state: Delivered | None) -> tuple[int, int, int, int]:
    assert state is not None
    assert state.taken == state.delivered + state.pending + state.dead
    return state.taken, state.delivered, state.pending, state.dead


def test_a_letter_goes_out_again_under_its_id_and_is_counted_once(
    table: LakeTable, folder: Path, hook: Receiver
) -> None:
    first, second, *_ = chosen(folder, [])
    hook.answers = {second.removeprefix("press.features."): [422]}
    ask(folder, [first, second, "nobody"])
    ask(folder, [first])
    courier = Courier(table, "press", Webhook(hook.url, attempts=1), folder)
    courier.step()
    assert whole(courier.state) == (ROWS, 9, 0, 3)
    assert courier.state.again == 1
    assert not unanswered(folder)
    assert [one["Idempotency-Key"] for one in hook.heads].count(first) == 1
    known = letters(folder)
    assert (known[first].outcome, known[second].outcome) == ("delivered", "refused")
    assert "422" in known[second].why
    courier.close()
    again = Courier(table, "press", Webhook(hook.url), folder)
    assert whole(again.state) == (ROWS, 9, 0, 3)
    again.close()


def test_a_receiver_that_is_away_is_waited_for(table: LakeTable, folder: Path, hook: Receiver) -> None:
    ask(folder, chosen(folder, []))
    hook.busy = True
    courier = Courier(table, "press", Webhook(hook.url), folder)
    courier.step()
    assert whole(courier.state) == (ROWS, 8, 0, 4)
    assert len(unanswered(folder)) == 1
    hook.busy = False
    end = time.monotonic() + 10
    while courier.state.dead and time.monotonic() < end:
        courier.step()
        time.sleep(0.02)
    assert whole(courier.state) == (ROWS, 12, 0, 0)
    courier.close()


def test_killed_between_delivery_and_count_it_is_counted_when_it_starts_again(
    table: LakeTable, folder: Path, hook: Receiver
) -> None:
    ask(folder, chosen(folder, []))
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom boucle.outlet.carriers import Webhook\n"
        "from boucle.outlet.deadletters import Postman\n"
        "Postman(Path(sys.argv[1])).step(Webhook(sys.argv[2]))\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(folder), hook.url], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert whole(read_delivered(folder)) == (ROWS, 8, 0, 4)
    courier = Courier(table, "press", Webhook(hook.url), folder)
    assert whole(courier.state) == (ROWS, 12, 0, 0)
    calls = hook.calls
    courier.step()
    assert hook.calls == calls
    assert not unanswered(folder)
    courier.close()


@given(st.binary(max_size=120))
@settings(max_examples=40, deadline=None)
def test_any_bytes_beside_the_letters_are_passed_over(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("port")
    for name in ("dead.ndjson", "again.ndjson"):
        (folder / name).write_bytes(content)
    (folder / "asked").mkdir()
    (folder / "asked" / "1-a.json").write_bytes(content)
    postman = Postman(folder)
    assert postman.step(Webhook("http://127.0.0.1:9/")) is False
    assert not unanswered(folder)
    assert letters(folder) == {}
    postman.close()


PRODUCT = """kind: DataProduct
apiVersion: v1.0.0
id: press
name: Press
version: 1.0.0
status: active
outputPorts:
  - name: news
    type: events
    version: 1.0.0
    contractId: c
    customProperties: [{{property: table, value: features}}, {{property: to, value: "{url}"}}]
---
kind: DataContract
apiVersion: v3.1.0
id: c
version: 1.0.0
status: active
schema:
  - name: features
    physicalType: topic
    properties:
      - {{name: machine, logicalType: string, required: true}}
      - {{name: at, logicalType: timestamp, required: true}}
---
kind: Loop
apiVersion: boucle/v1
id: l
product: press
contract: c
sources:
  features: {{from: "memory:features", schema: features}}
"""


def test_the_command_lists_shows_and_sends_again(
    table: LakeTable, folder: Path, hook: Receiver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    product = tmp_path / "product"
    product.mkdir()
    (product / "product.yaml").write_text(PRODUCT.format(url=hook.url), encoding="utf-8")
    place = ["--product", str(product), "--run", str(tmp_path / "run")]
    assert main(["deadletters", *place, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["letters"]
    assert [one["id"] for one in listed] == [f"press.features.1.{row}" for row in (0, 3, 6, 9)]
    assert main(["deadletters", "show", "press.features.1.3", *place]) == 0
    shown = capsys.readouterr().out
    assert "410" in shown
    assert '"specversion": "1.0"' in shown
    hook.answers = {"1.9": [400]}
    assert main(["deadletters", "retry", *place, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["asked"], told["delivered"], told["refused"], told["waiting"]) == (4, 3, 1, 0)
    assert whole(read_delivered(folder)) == (ROWS, 11, 0, 1)
    hook.busy = True
    assert main(["deadletters", "retry", "--port", "news", *place, "--wait", "0.3"]) == 1
    assert "1 wait (B858" in capsys.readouterr().out
    hook.busy = False
    # A loop that runs holds this lock, and sends what was asked for itself.
    with (tmp_path / "run" / "lake.lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert main(["deadletters", "retry", *place, "--wait", "0.3"]) == 1
        assert "1 wait\n" in capsys.readouterr().out
        courier = Courier(table, "press", Webhook(hook.url), folder)
        courier.step()
        courier.close()
    assert whole(read_delivered(folder)) == (ROWS, 12, 0, 0)
    assert main(["deadletters", "retry", *place]) == 0
    assert "0 asked for" in capsys.readouterr().out
    assert main(["deadletters", *place]) == 0
    assert "0 dead letters" in capsys.readouterr().out
    for words, code in (
        (["list", "nobody"], "B860"),
        (["retry", "nobody"], "B860"),
        (["--port", "x"], "B861"),
    ):
        assert main(["deadletters", *words, *place]) == 1
        assert code in capsys.readouterr().err

"""One trace for each sampled Block: where its time went, as OpenTelemetry writes it down."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from boucle.event import Command, Outcome, Receipt
from boucle.loop.trace import Trace, Tracer, otlp
from boucle.web import create_app, serve
from tests.loop.manual import ManualPlant
from tests.loop.plant import short_story
from tests.loop.test_load import Loaded, rows


def spans(trace: dict[str, Any]) -> list[dict[str, Any]]:
    (resource,) = trace["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    return list(scope["spans"])


def told(span: dict[str, Any]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}


def well_formed(trace: dict[str, Any]) -> None:
    """What the OpenTelemetry protocol asks of its JSON: hexadecimal ids, 64-bit numbers as strings."""
    root, *below = spans(trace)
    assert "parentSpanId" not in root
    assert len({one["spanId"] for one in (root, *below)}) == 1 + len(below)
    for one in (root, *below):
        assert (len(bytes.fromhex(one["traceId"])), len(bytes.fromhex(one["spanId"]))) == (16, 8)
        assert one["traceId"] == root["traceId"]
        begin, end = int(one["startTimeUnixNano"]), int(one["endTimeUnixNano"])
        assert int(root["startTimeUnixNano"]) <= begin <= end <= int(root["endTimeUnixNano"])
        assert isinstance(one["startTimeUnixNano"], str)
        assert all(len(value["value"]) == 1 for value in one["attributes"])
    assert all(one["parentSpanId"] == root["spanId"] for one in below)


def test_a_block_is_followed_from_its_source_to_the_value_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOUCLE_RUN_TRACE_EVERY", "1")
    plant = ManualPlant(tmp_path, 1, short_story(30.0))
    plant.loop.open()
    while not any(receipt.outcome is Outcome.applied for _, receipt in plant.receipts("plc/")):
        plant.step()
        assert plant.line.elapsed < 60
    traces = plant.loop.picture.traces()
    (led,) = [trace for trace in traces if any(told(one).get("boucle.read_back") for one in spans(trace))]
    well_formed(led)
    names = [one["name"] for one in spans(led)]
    assert names[:5] == ["Block vibration", "source", "decode", "contract", "log"]
    taken = ("vibration_events", "features", "health", "verdicts", "features_right")
    steps = [f"step {one}" for one in taken]
    assert sorted(set(names[5:]), key=names.index) == sorted([*steps, "decision", "command"], key=names.index)
    assert [name for name in sorted(set(names), key=names.index) if name.startswith("step")] == steps
    command = next(one for one in spans(led) if one["name"] == "command")
    assert told(command)["boucle.outcome"] == "applied"
    assert told(command)["boucle.target"].endswith("/speed_setpoint")
    assert command["kind"] == 3
    plant.loop.close()


def test_through_the_queue_and_only_one_in_so_many(tmp_path: Path) -> None:
    loaded = Loaded(tmp_path, {"run.trace_every": 3})
    for first in range(0, 100, 10):
        loaded.needed.put_rows(rows(first, 10))
        loaded.received("needed", first + 10)
    loaded.drain()
    traces = loaded.loop.picture.traces()
    assert len(traces) == 4
    for trace in traces:
        well_formed(trace)
        assert [one["name"] for one in spans(trace)[1:]] == [
            "source", "decode", "contract", "log", "queue", "step passed"
        ]  # fmt: skip
        assert told(spans(trace)[-1]) == {"boucle.rows_in": "10", "boucle.rows_out": "10"}
    with serve(create_app(loaded.loop.picture), port=0) as page:
        whole = httpx.get(page.url + "trace.json", trust_env=False, timeout=60).json()
        lines = httpx.get(page.url + "trace.jsonl", trust_env=False, timeout=60).text.splitlines()
    assert [json.loads(line) for line in lines] == traces
    assert whole == {"resourceSpans": [one for trace in traces for one in trace["resourceSpans"]]}
    loaded.stop()


def test_none_when_it_is_turned_off(tmp_path: Path) -> None:
    loaded = Loaded(tmp_path, {"run.trace_every": 0})
    loaded.needed.put_rows(rows(0, 10))
    loaded.received("needed", 10)
    loaded.drain()
    assert loaded.loop.picture.traces() == []
    assert loaded.loop.intakes["needed"].trace is None
    loaded.stop()


def test_a_block_of_which_nothing_is_taken_ends_where_it_was_put_aside(tmp_path: Path) -> None:
    loaded = Loaded(tmp_path, {"run.trace_every": 1})
    for _ in range(2):
        loaded.needed.put_rows(rows(0, 10))
    loaded.received("needed", 20)
    loaded.drain()
    ended = {told(spans(one)[3])["boucle.taken"]: one for one in loaded.loop.picture.traces()}
    first, second = ended["10"], ended["0"]
    assert [one["name"] for one in spans(second)[1:]] == ["source", "decode", "contract"]
    assert len(spans(first)) > 4
    loaded.stop()


def traced(tracer: Tracer) -> Trace:
    trace = tracer.begin("needed", 0)
    assert trace is not None
    tracer.keep(trace)
    return trace


def test_only_the_last_are_kept() -> None:
    tracer = Tracer(1, kept=3)
    made = [traced(tracer) for _ in range(10)]
    assert tracer.last() == made[-3:]


def test_a_command_that_was_refused_is_marked() -> None:
    tracer = Tracer(1)
    tracer.deciding = trace = traced(tracer)
    command = Command("c1", "plc/press-1/speed", "set", 3, 0, caused_at=1)
    tracer.sent(command)
    tracer.sent(Command("from outside", "plc/press-1/speed", "set", 3, 0))
    tracer.deciding = None
    tracer.answered(command, Receipt("c1", command.target, Outcome.refused, 1, "no", "interlock"))
    tracer.answered(command, Receipt("c1", command.target, Outcome.duplicate, 1))
    (span,) = spans(otlp(trace, "press-line"))[1:]
    assert (span["status"], told(span)["boucle.code"]) == ({"code": 2}, "interlock")

"""JSON payloads: each row on its own, each refusal with its reason."""

import json
import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.errors import BoucleError
from boucle.product.contract import FieldContract, StreamContract
from boucle.quality.decode import Decoder
from boucle.quality.json_rows import instant
from tests.quality.signals import NOW, PROCESS, wire

GOOD: dict[str, Any] = {"machine": "press-1", "sensor": "pressure", "at": NOW, "value": 7.5, "status": "Good"}


def decoder(**limits: int) -> Decoder:
    return Decoder(PROCESS, "json", **limits)


def refused(payload: bytes | Any) -> list[str]:
    _, rejects = decoder().decode(
        wire(payload if isinstance(payload, bytes) else json.dumps(payload).encode())
    )
    return [one.reason for one in rejects]


def test_one_object_becomes_one_typed_row() -> None:
    block, rejects = decoder().decode(wire(json.dumps(GOOD).encode(), stream="slow"))
    assert rejects == []
    assert block is not None
    assert block.rows.schema == PROCESS.schema()
    assert (block.stream, block.watermark, block.position.offset) == ("slow", 7, 9)
    assert block.rows.column("at").cast(pa.int64()).to_pylist() == [NOW]
    assert block.rows.column("tries").to_pylist() == [None]


def test_a_bad_row_does_not_drop_the_others() -> None:
    rows = [GOOD, {**GOOD, "value": "high"}, {**GOOD, "value": 8}]
    block, rejects = decoder().decode(wire(json.dumps(rows).encode(), json.dumps(GOOD).encode()))
    assert block is not None
    assert block.rows.column("value").to_pylist() == [7.5, 8.0, 7.5]
    [one] = rejects
    assert (one.reason, one.source, one.topic) == ("wrong_type", "vibration", "press/press-1/vibration")
    assert json.loads(one.payload)["value"] == "high"
    assert "value" in one.detail


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**GOOD, "value": "7"}, "wrong_type"),
        ({**GOOD, "machine": 1}, "wrong_type"),
        ({**GOOD, "held": 1}, "wrong_type"),
        ({**GOOD, "tries": 1.5}, "wrong_type"),
        ({**GOOD, "tries": 300}, "out_of_range"),
        ({**GOOD, "at": 2**70}, "out_of_range"),
        ({**GOOD, "at": "yesterday"}, "wrong_type"),
        ({**GOOD, "at": "2026-01-01T00:00:00"}, "wrong_type"),
        ({**GOOD, "at": "9999-01-01T00:00:00Z"}, "wrong_type"),
        ({**GOOD, "at": None}, "missing"),
        ({name: value for name, value in GOOD.items() if name != "machine"}, "missing"),
        ({**GOOD, "colour": "blue"}, "unknown_column"),
        ({**GOOD, "value": math.nan}, "not_finite"),
        ({**GOOD, "value": -math.inf}, "not_finite"),
        ({**GOOD, "value": "NaN"}, "wrong_type"),
        (7, "wrong_type"),
        ([[GOOD]], "wrong_type"),
    ],
)
def test_each_mistake_has_its_reason(row: Any, reason: str) -> None:
    assert refused(row) == [reason]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"nonsense",
        b"\xff\xfe",
        b'{"machine": "\xff"}',
        b"[" * 100_000,
        b"[1,2",
        b"[NaN",
        b"NaN" * 9,
        b'{"a":' * 100_000,
        b'["\\ud800", NaN',
        b"[" * 50_000 + b"NaN",
    ],
    ids=range(12),
)
def test_what_is_no_json_is_malformed(payload: bytes) -> None:
    assert refused(payload) == ["malformed"]


def test_nan_as_python_writes_it_costs_only_its_row() -> None:
    rows = [GOOD, {**GOOD, "value": math.nan}, {**GOOD, "value": math.inf}, {**GOOD, "sensor": "x"}]
    block, rejects = decoder().decode(wire(json.dumps(rows).encode()))
    assert block is not None
    assert len(block) == 2
    assert [one.reason for one in rejects] == ["not_finite", "not_finite"]
    assert refused(b'{"machine":"press-1","sensor":"x","at":1,"value":1e999}') == ["not_finite"]


def test_bytes_that_are_no_utf8_cost_only_their_row() -> None:
    good = json.dumps(GOOD).encode()
    block, rejects = decoder().decode(wire(b"[" + good + b"," + good.replace(b"Good", b"G\xff") + b"]"))
    assert block is not None
    assert [one.reason for one in rejects] == ["malformed"]
    assert refused(b'{"machine":"press-1","sensor":"x","at":1,"value":NaN}') == ["not_finite"]


def test_text_that_is_no_unicode_costs_only_its_row() -> None:
    rows = b'[{"machine":"\\ud800","sensor":"x","at":1},{"machine":"m","sensor":"x","at":1,"value":NaN}]'
    assert refused(rows) == ["malformed", "not_finite"]


def test_sizes_are_bounded() -> None:
    small = decoder(max_bytes=200, max_rows=2)
    payloads = [b" " * 201, json.dumps([1, 2, 3]).encode(), b"[]"]
    _, rejects = small.decode(wire(*payloads))
    assert [one.reason for one in rejects] == ["too_large", "too_large", "empty"]


def test_retained_readings_pass_and_are_counted() -> None:
    retained = decoder()
    block, _ = retained.decode(wire(json.dumps(GOOD).encode(), retained=True))
    assert block is not None
    assert retained.retained == 1


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.123456789z", 123_456_789),
        ("1969-12-31T23:59:59.5Z", -500_000_000),
        ("2026-01-01T02:00:00.000000001+02:00", NOW + 1),
    ],
)
def test_times_keep_their_nanoseconds(text: str, nanos: int) -> None:
    assert instant(text) == nanos


def test_columns_may_be_called_anything() -> None:
    odd = StreamContract(
        "odd",
        (FieldContract("class", pa.int32(), required=True), FieldContract("a b", pa.list_(pa.float32()))),
        "",
    )
    block, rejects = Decoder(odd, "json").decode(wire(b'{"class": 1, "a b": [1, 2.5]}'))
    assert block is not None
    assert rejects == []
    assert block.rows.to_pylist() == [{"class": 1, "a b": [1.0, 2.5]}]


def test_a_type_json_cannot_carry_is_said_at_once() -> None:
    with pytest.raises(BoucleError, match="B420"):
        Decoder(StreamContract("s", (FieldContract("x", pa.date32()),), ""), "json")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
names = ["machine", "sensor", "at", "value", "status", "tries", "held", "x"]
rows_ = st.fixed_dictionaries({}, optional={name: values | st.just(GOOD.get(name)) for name in names})


@given(st.lists(rows_ | values, min_size=1, max_size=5))
def test_every_row_is_either_good_or_refused(rows: list[Any]) -> None:
    block, rejects = decoder().decode(wire(json.dumps(rows).encode()))
    assert (len(block) if block else 0) + len(rejects) == len(rows)
    if block:
        block.rows.validate(full=True)
        assert block.rows.schema == PROCESS.schema()


@given(st.binary(max_size=200), st.integers(0, 90), st.integers(1, 255))
def test_no_bytes_are_a_crash(noise: bytes, place: int, flip: int) -> None:
    text = bytearray(json.dumps([GOOD, GOOD]).encode())
    text[place] ^= flip
    block, rejects = decoder().decode(wire(noise, bytes(text), bytes(text[:place])))
    assert (len(block) if block else 0) + len(rejects) >= 3
    if block:
        assert block.rows.schema == PROCESS.schema()

"""Arrow payloads: taken as they are when they fit, cast when nothing is lost, refused otherwise."""

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.quality.check import Checker
from boucle.quality.decode import Decoder
from tests.quality.signals import PROCESS, VIBRATION, StillClock, chunk, stream_of, wire

SMALL = stream_of(chunk(8))


def decode(payload: bytes, **limits: int) -> tuple[Any, list[str]]:
    block, rejects = Decoder(VIBRATION, "arrow", **limits).decode(wire(payload))
    return block, [one.reason for one in rejects]


def test_a_message_becomes_its_rows() -> None:
    block, rejects = Decoder(VIBRATION, "arrow").decode(wire(SMALL, SMALL))
    assert rejects == []
    assert block is not None
    assert block.rows.schema == VIBRATION.schema()
    assert block.rows.slice(3).equals(chunk(8))


def test_several_batches_of_one_stream_are_one_reading_after_the_other() -> None:
    block, rejects = decode(stream_of(chunk(8), chunk(4), chunk(8)))
    assert rejects == []
    assert len(block) == 9


def test_compressed_payloads_are_taken() -> None:
    for codec in ("lz4", "zstd"):
        block, rejects = decode(stream_of(chunk(500), options=pa.ipc.IpcWriteOptions(compression=codec)))
        assert rejects == []
        assert block.rows.equals(chunk(500))


def test_other_orders_and_widths_are_cast_when_nothing_is_lost() -> None:
    rows = pa.table(chunk(8).to_pydict() | {"at": chunk(8).column("at").cast(pa.timestamp("us", "UTC"))})
    wide = rows.cast(
        pa.schema(
            [
                ("producer", pa.large_string()),
                ("seq", pa.int32()),
                ("machine", pa.string()),
                ("sensor", pa.string()),
                ("at", pa.timestamp("us", "Europe/Paris")),
                ("rate_hz", pa.float32()),
                ("samples", pa.large_list(pa.float32())),
            ]
        )
    ).select(["samples", "at", "rate_hz", "machine", "seq", "sensor", "producer"])
    block, rejects = decode(stream_of(*wide.to_batches()))
    assert rejects == []
    assert block.rows.equals(chunk(8))


def _with(name: str, column: Any) -> bytes:
    rows = chunk(8)
    return stream_of(rows.set_column(rows.schema.get_field_index(name), name, column))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (_with("seq", pa.array([1.5] * 3)), "wrong_type"),
        (_with("seq", pa.array([2**63] * 3, pa.uint64())), "wrong_type"),
        (_with("machine", pa.array(["press-1"] * 3).dictionary_encode()), "malformed"),
        (_with("at", pa.array([1] * 3, pa.timestamp("ns"))), "wrong_type"),
        (_with("samples", pa.array([["1"]] * 3)), "wrong_type"),
        (_with("samples", pa.nulls(3)), "wrong_type"),
        (stream_of(chunk(8).append_column("extra", pa.array([1, 2, 3]))), "unknown_column"),
        (stream_of(chunk(8).drop_columns(["seq"])), "missing"),
        (stream_of(pa.record_batch([*chunk(8).columns, chunk(8).column(0)],
                                   names=[*VIBRATION.schema().names, "producer"])), "malformed"),
        (stream_of(chunk(8).slice(0, 0)), "empty"),
        (b"", "malformed"),
        (SMALL + b"more", "malformed"),
        (SMALL[:-9], "malformed"),
        (SMALL[:300], "malformed"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_whole(payload: bytes, reason: str) -> None:
    block, reasons = decode(payload)
    assert block is None
    assert reasons == [reason]


def test_doubles_are_rounded_to_the_floats_of_the_contract() -> None:
    doubles = pa.array([[0.1, 1e300]] * 3, pa.list_(pa.float64()))
    block, reasons = decode(_with("samples", doubles))
    assert reasons == []
    assert block.rows.column("samples")[0].as_py()[0] == pytest.approx(0.1)
    _, rejects = Checker(VIBRATION, clock=StillClock()).check(block)
    assert [one.reason for one in rejects] == ["not_finite"] * 3


def test_text_that_is_no_unicode_is_malformed() -> None:
    bad = SMALL.replace(b"vib_y", b"\xff\xfe_yy")
    assert decode(bad) == (None, ["malformed"])


def test_optional_columns_may_be_absent() -> None:
    rows = pa.record_batch(
        {"at": pa.array([1], pa.timestamp("ns", "UTC")), "machine": ["m"], "sensor": ["s"]}
    )
    block, rejects = Decoder(PROCESS, "arrow").decode(wire(stream_of(rows)))
    assert rejects == []
    assert block is not None
    assert block.rows.column("value").to_pylist() == [None]
    assert block.rows.schema == PROCESS.schema()


def test_a_known_schema_is_read_as_the_first_time() -> None:
    again = Decoder(VIBRATION, "arrow")
    for _ in range(3):
        block, _ = again.decode(wire(stream_of(chunk(8), chunk(4))))
        assert block is not None
        assert block.rows.slice(3).equals(chunk(4))
        assert block.rows.schema == VIBRATION.schema()
    assert again.decode(wire(SMALL[:-9]))[1][0].reason == "malformed"


def test_a_decompression_bomb_is_refused_by_its_declared_size() -> None:
    zeros = chunk(20_000, samples=[[0.0] * 20_000] * 3)
    bomb = stream_of(*[zeros] * 40, options=pa.ipc.IpcWriteOptions(compression="zstd"))
    assert len(bomb) < 100_000
    assert decode(bomb) == (None, ["too_large"])
    lie = stream_of(zeros, options=pa.ipc.IpcWriteOptions(compression="zstd"))
    claimed = lie.replace(struct.pack("<q", 240_000), struct.pack("<q", 1 << 45))
    assert claimed != lie
    assert decode(claimed) == (None, ["too_large"])


def _nulls(count: int) -> Any:
    return pa.Array.from_buffers(pa.null(), count, [None])


def test_a_column_of_claims_is_refused() -> None:
    """Three rows of a nested null column may declare billions of values in no bytes at all."""
    claims = pa.ListArray.from_arrays(pa.array([0, 0, 1 << 30, 1 << 30], pa.int32()), _nulls(1 << 30))
    assert decode(_with("samples", claims)) == (None, ["malformed"])
    many = pa.record_batch([_nulls((1 << 31) - 1)], names=["samples"])
    assert decode(stream_of(many)) == (None, ["too_large"])


def test_limits_are_those_asked_for() -> None:
    assert decode(SMALL, max_bytes=100) == (None, ["too_large"])
    assert decode(SMALL, max_rows=2) == (None, ["too_large"])
    assert decode(stream_of(*[chunk(2)] * 3), max_rows=8) == (None, ["too_large"])


def _judged(payload: bytes) -> None:
    used = Decoder(VIBRATION, "arrow")
    used.decode(wire(SMALL))
    block, rejects = used.decode(wire(payload))
    fresh, _ = Decoder(VIBRATION, "arrow").decode(wire(payload))
    assert (block is None) == (fresh is None)
    if block is None:
        assert len(rejects) == 1
        return
    assert rejects == []
    block.rows.validate(full=True)
    assert block.rows.schema == VIBRATION.schema()
    good, more = Checker(VIBRATION, clock=StillClock()).check(block)
    assert len(good) + len(more) == len(block)
    again, none = Checker(VIBRATION, clock=StillClock()).check(good)
    assert (len(again), none) == (len(good), [])
    assert set(good.rows.column("machine").to_pylist()) <= {"press-1", "press-2"}


@given(st.binary(max_size=300))
def test_random_bytes_are_never_rows(noise: bytes) -> None:
    assert decode(noise) == (None, ["malformed"])


@settings(max_examples=400)
@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bits_give_good_rows_or_rejects(flips: list[tuple[int, int]]) -> None:
    payload = bytearray(SMALL)
    for place, flip in flips:
        payload[place] ^= flip
    _judged(bytes(payload))


PACKED = stream_of(chunk(64), chunk(64), options=pa.ipc.IpcWriteOptions(compression="zstd"))


@settings(max_examples=200)
@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255), st.integers(0, len(PACKED)))
def test_flipped_and_cut_compressed_payloads(place: int, flip: int, end: int) -> None:
    payload = bytearray(PACKED)
    payload[place] ^= flip
    _judged(bytes(payload))
    _judged(bytes(payload[:end]))


@given(st.integers(0, len(SMALL) - 1))
def test_a_truncated_stream_is_refused_or_whole(end: int) -> None:
    _judged(SMALL[:end])


@settings(max_examples=600, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(1, 255)), max_size=4),
    st.integers(1, 30),
    st.sampled_from([0, 0, 0, 1, 8, 16, 400]),
)
def test_what_is_built_like_something_known_is_read_as_if_it_were_not(
    flips: list[tuple[int, int]], samples: int, cut: int
) -> None:
    payload = bytearray(stream_of(chunk(samples)))
    for place, flip in flips:
        payload[place % len(payload)] ^= flip
    given_ = [SMALL, SMALL, bytes(payload[: len(payload) - cut]), SMALL]
    knowing = Decoder(VIBRATION, "arrow")
    knowing.decode(wire(SMALL, SMALL))
    block, rejects = knowing.decode(wire(*given_))
    alone = [Decoder(VIBRATION, "arrow").decode(wire(one)) for one in given_]
    batches = [told.rows for told, _ in alone if told is not None]
    assert block is not None
    assert block.rows.equals(pa.concat_batches(batches))
    assert [one.reason for one in rejects] == [one.reason for _, some in alone for one in some]


def test_messages_of_one_make_are_read_together_whatever_their_sizes() -> None:
    decoder = Decoder(VIBRATION, "arrow")
    sizes = [8, 8, 3, 1000, 1, 64, 8]
    payloads = [stream_of(chunk(size)) for size in sizes]
    decoder.decode(wire(*payloads))
    block, rejects = decoder.decode(wire(*payloads))
    assert rejects == []
    assert block is not None
    assert block.rows.equals(pa.concat_batches([chunk(size) for size in sizes]))
    data, offsets = np.frombuffer(b"".join(payloads), np.uint8), np.cumsum([0, *map(len, payloads)])
    assert decoder._arrow is not None
    assert decoder._arrow.read_alike(data, offsets.astype(np.int32), 0)[1] == len(sizes)

"""Rows of waveform as the edge takes them: chunks of samples and the numbers of their sensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from boucle.block import Block
from boucle.errors import ContractBroken

__all__ = ["Chunks", "Sensors", "chunks_of"]

Samples = NDArray[np.float32]
Ints = NDArray[np.int64]
_TIME = pa.timestamp("ns", tz="UTC")


class Sensors:
    """Numbers 0, 1, 2 … for the sensors (values of the `by` columns), as they are met."""

    def __init__(self, by: Sequence[str]) -> None:
        self.by = tuple(by)
        self.known: list[tuple[Any, ...]] = []
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._ranks: Ints = np.zeros(0, np.int64)

    def of(self, rows: pa.RecordBatch) -> Ints:
        """The number of each row's sensor."""
        columns = [rows.column(name).to_pylist() for name in self.by]
        keys = list(zip(*columns, strict=True)) if columns else [()] * rows.num_rows
        try:
            return np.fromiter(map(self._numbers.__getitem__, keys), np.int64, len(keys))
        except KeyError:
            for key in keys:
                if key not in self._numbers:
                    self._numbers[key] = len(self.known)
                    self.known.append(key)
        return np.fromiter(map(self._numbers.__getitem__, keys), np.int64, len(keys))

    def ranks(self, numbers: Ints) -> Ints:
        """Where the sensors stand in the order of their names, nulls last."""
        if len(self._ranks) != len(self.known):
            order = sorted(
                range(len(self.known)), key=lambda i: [(part is None, part) for part in self.known[i]]
            )
            self._ranks = np.empty(len(order), np.int64)
            self._ranks[order] = np.arange(len(order))
        return self._ranks[numbers]

    def columns(self, numbers: Ints, kinds: Sequence[pa.DataType]) -> list[pa.Array]:
        """The `by` columns of rows of these sensors."""
        keys = [self.known[number] for number in numbers.tolist()]
        return [pa.array([key[place] for key in keys], kind) for place, kind in enumerate(kinds)]

    def restore(self, known: Sequence[Sequence[Any]]) -> None:
        """Continue with the sensors another one knew."""
        self.known, self._ranks = [tuple(key) for key in known], np.zeros(0, np.int64)
        self._numbers = {key: number for number, key in enumerate(self.known)}


class Chunks(Struct, frozen=True):
    """The waveform of a Block: chunk i of sensor `keys[i]` is `values[begins[i]:ends[i]]` from `at[i]` on."""

    keys: Ints
    at: Ints
    begins: NDArray[np.int32]
    ends: NDArray[np.int32]
    values: Samples


def chunks_of(block: Block, samples: str, time: str, sensors: Sensors) -> Chunks:
    """The chunks of a Block's rows, without a copy where they are float32; B401 when they are no numbers."""
    rows = block.rows
    lists = rows.column(samples)
    if not pa.types.is_list(lists.type) or lists.type.value_type != pa.float32():
        try:
            lists = lists.cast(pa.list_(pa.float32()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ContractBroken(
                "B401",
                f"samples are {lists.type}, not a list of float32",
                where=block.stream,
                why=str(error),
                fix="send each chunk as a list of numbers",
            ) from error
    times = rows.column(time)
    if times.null_count:
        raise ContractBroken(
            "B401",
            f"{times.null_count} chunks do not say when they began",
            where=block.stream,
            fix=f"send {time} with every chunk",
        )
    if not pa.types.is_integer(times.type):
        times = (times if times.type == _TIME else times.cast(_TIME)).view(pa.int64())
    offsets = lists.offsets.to_numpy()
    begins, ends = offsets[:-1], offsets[1:]
    if lists.null_count:
        ends = np.where(lists.is_valid().to_numpy(zero_copy_only=False), ends, begins)
    values = lists.values.to_numpy(zero_copy_only=False)
    return Chunks(sensors.of(rows), times.to_numpy(), begins, ends, values)

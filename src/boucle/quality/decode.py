"""Messages become typed rows here and nowhere else; what cannot is refused with its reason."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from boucle.block import Block
from boucle.clock import Nanos
from boucle.product.contract import StreamContract
from boucle.quality.arrow_rows import ArrowRows
from boucle.quality.json_rows import JsonRows
from boucle.quality.reject import Reject, Unreadable, reject

__all__ = ["Decoder"]


class Decoder:
    """Decodes the messages of one source against its contract.

    A JSON array is judged row by row; an Arrow stream stands or falls as one reading. A message
    longer than `max_bytes` (also once decompressed) or with more than `max_rows` rows is refused
    before memory is spent on it. Retained messages are old news the broker repeats at each
    connection: they pass (the identity of a reading tells whether it is known already) and
    `retained` counts them.
    """

    def __init__(
        self,
        contract: StreamContract,
        format: Literal["json", "arrow"],  # noqa: A002 - the word of the product file
        *,
        max_bytes: int = 1 << 20,
        max_rows: int = 100_000,
    ) -> None:
        self.contract = contract
        self.format = format
        self.retained = 0
        self._max_bytes = max_bytes
        self._json = JsonRows(contract, max_rows) if format == "json" else None
        self._arrow = ArrowRows(contract, max_bytes, max_rows) if format == "arrow" else None

    def decode(self, wire: Block) -> tuple[Block | None, list[Reject]]:
        """Typed rows with exactly `contract.schema()` (None when no row could be read), and what could not.

        Each row of the answer, and each reject, is one reading.
        """
        topics, payloads, received, retained = wire.rows.columns
        self.retained += retained.true_count
        batches: list[pa.RecordBatch] = []
        rejects: list[Reject] = []
        rows: list[Any] = []
        for message in self._unusual(payloads, batches):
            payload, topic = payloads[message].as_py(), topics[message].as_py()
            at = received[message].value
            try:
                self._message(payload, batches, rows, rejects, (wire.stream, topic, at))
            except Unreadable as broken:
                told = reject(wire.stream, broken.reason, broken.what, at, payload, topic, self.format)
                rejects.append(told)
        if self._json is not None and rows:
            batches.append(self._json.batch(rows))
        if not batches:
            return None, rejects
        whole = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
        return Block(wire.stream, whole, wire.watermark, wire.position), rejects

    def _unusual(self, payloads: pa.Array, batches: list[pa.RecordBatch]) -> Iterator[int]:
        """The messages to be read one by one, each in its turn; the others' rows are put into `batches`."""
        if self._arrow is None:
            yield from range(len(payloads))
            return
        _, held, data = payloads.buffers()
        offsets = np.frombuffer(held, np.int32, len(payloads) + 1, 4 * payloads.offset)
        every = np.frombuffer(data or b"", np.uint8)
        message = 0
        while message < len(payloads):
            alike, count = self._arrow.read_alike(every, offsets, message)
            if alike is None:
                yield message
            else:
                batches.append(alike)
            message += max(count, 1)

    def _message(
        self,
        payload: bytes,
        batches: list[pa.RecordBatch],
        rows: list[Any],
        rejects: list[Reject],
        origin: tuple[str, str, Nanos],
    ) -> None:
        if len(payload) > self._max_bytes:
            raise Unreadable("too_large", f"{len(payload)} bytes, at most {self._max_bytes} are taken")
        if self._arrow is not None:
            batches.append(self._arrow.read(payload))
            return
        assert self._json is not None
        good, bad = self._json.read(payload)
        rows.extend(good)
        stream, topic, at = origin
        rejects.extend(reject(stream, why, what, at, row, topic, self.format) for why, what, row in bad)

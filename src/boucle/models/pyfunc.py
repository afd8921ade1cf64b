"""A model that only its own environment can run (MLflow `pyfunc`), scored by a child process of that environment.

Rows go and come as Arrow IPC streams over the child's pipes, each after its length. A child that dies or misses its
deadline is killed and started again at the next Block; the Block it held is told as failed, never as scored.
"""

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from boucle.block import Block
from boucle.errors import BoucleError, SignatureMismatch, Unavailable

__all__ = ["PyfuncModel"]

_LENGTH = 8
_CHILD = Path(__file__).with_name("pyfunc_child.py")


class PyfuncModel:
    """An MLflow model folder, run by `python`: the interpreter of an environment with mlflow and the model's needs.

    `inputs` are given to it as a DataFrame, in this order; its answer becomes the columns `outputs`.
    """

    def __init__(
        self,
        folder: Path,
        python: str | Path,
        *,
        inputs: Sequence[str],
        outputs: Sequence[str],
        deadline: float = 5.0,
        start: float = 120.0,
    ) -> None:
        self._folder, self._python = folder, python
        self.inputs, self.outputs = list(inputs), list(outputs)
        self._deadline, self._start = deadline, start
        self._child: subprocess.Popen[bytes] | None = None
        self.restarts = -1

    def score(self, block: Block) -> Block:
        """The Block with the outputs appended; Unavailable (B641) when the child died or was too slow.

        SignatureMismatch when a column is missing, or the answer has another shape.
        """
        if missing := [one for one in self.inputs if one not in block.rows.schema.names]:
            what, fix = "the model needs other columns", "give it the columns of its signature"
            raise SignatureMismatch("B612", what, where=block.stream, why=", ".join(missing), fix=fix)
        if len(block) == 0:
            answer = pa.table({one: pa.array([], pa.float64()) for one in self.outputs})
        else:
            answer = self._ask(block.rows.select(self.inputs))
        if answer.num_rows != len(block) or answer.num_columns != len(self.outputs):
            raise SignatureMismatch(
                "B642",
                "the model answers with another shape",
                where=block.stream,
                why=f"{answer.num_rows} rows of {answer.num_columns} columns for {len(block)} of {len(self.outputs)}",
                fix="name as many outputs as it has",
            )
        rows = block.rows
        for name, column in zip(self.outputs, answer.columns, strict=True):
            rows = rows.append_column(name, column.combine_chunks())
        return Block(block.stream, rows, block.watermark, block.position)

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _ask(self, rows: pa.RecordBatch) -> pa.Table:
        child = self._running()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_batch(rows)
        body = sink.getvalue().to_pybytes()
        try:
            end = time.monotonic() + self._deadline
            _write(child, len(body).to_bytes(_LENGTH, "big") + body, end)
            answer = _read(child, int.from_bytes(_read(child, _LENGTH, end), "big"), end)
            if answer[:1] == b"!":
                what, fix = "the model refuses these rows", "look at the model's own code"
                raise BoucleError("B643", what, why=answer[1:].decode(errors="replace"), fix=fix)
            return pa.ipc.open_stream(answer).read_all()
        except (OSError, EOFError, pa.ArrowInvalid) as error:
            self.close()
            raise Unavailable(
                "B641",
                "the model's process did not answer",
                where=str(self._folder),
                why=str(error) or "it ended",
                fix="it is started again at the next Block; look at its standard error",
            ) from error

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._child is not None and self._child.poll() is None:
            return self._child
        self.close()
        self.restarts += 1
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "ORT_DISABLE_TELEMETRY": "1"}
        environment.pop("PYTHONPATH", None)
        try:
            self._child = subprocess.Popen(  # noqa: S603 - the interpreter that was named
                [str(self._python), str(_CHILD), str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
            # A few bytes when the model is loaded: the first rows need not wait for it within their deadline.
            _read(self._child, 2, time.monotonic() + self._start)
        except (OSError, EOFError) as error:
            self.close()
            what = "the model's process cannot be started"
            fix = "name a Python with mlflow and what the model needs (its requirements.txt)"
            raise Unavailable(
                "B641", what, where=str(self._python), why=str(error) or "it ended", fix=fix
            ) from error
        return self._child


def _read(child: "subprocess.Popen[bytes]", count: int, end: float) -> bytes:
    """So many bytes before the deadline: TimeoutError or EOFError otherwise."""
    assert child.stdout is not None
    parts, handle = bytearray(), child.stdout.fileno()
    while len(parts) < count:
        ready, _, _ = select.select([handle], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise TimeoutError("it missed its deadline")
        part = os.read(handle, min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError("it ended")
        parts += part
    return bytes(parts)


def _write(child: "subprocess.Popen[bytes]", body: bytes, end: float) -> None:
    assert child.stdin is not None
    handle, rest = child.stdin.fileno(), memoryview(body)
    os.set_blocking(handle, False)
    while rest:
        _, ready, _ = select.select([], [handle], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise TimeoutError("it missed its deadline")
        rest = rest[os.write(handle, rest) :]

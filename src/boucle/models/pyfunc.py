"""A model that only its own environment can run (MLflow `pyfunc`), scored by a child process of that environment.

Rows go and come as Arrow IPC streams over the child's pipes, each after its length. A child that dies, misses its
deadline or takes more memory than it may is killed; the Block it held is told as failed, never as scored.

The child runs code that came with the model, with the rights of its parent: load models of people you trust. It is
not given the variables `BOUCLE_*`, where secrets are.
"""

import contextlib
import os
import resource
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from boucle.block import Block
from boucle.errors import BoucleError, SignatureMismatch, Unavailable

__all__ = ["PyfuncChild", "PyfuncModel"]

_LENGTH = 8
_CHILD = Path(__file__).with_name("pyfunc_child.py")
_LOOK = 0.05
"""Seconds between two looks at the child's memory while it works."""


class PyfuncChild:
    """A child process that has loaded an MLflow model folder.

    `python` is the interpreter of an environment with mlflow and what the model needs; `deadline` (s) is for a Block,
    `start` (s) until the model is loaded, `memory` (bytes, 0: any) what the process may take in all.
    """

    def __init__(
        self,
        folder: Path,
        python: str | Path,
        *,
        deadline: float = 5.0,
        start: float = 120.0,
        memory: int = 0,
    ) -> None:
        self._folder, self._python = folder, python
        self._deadline, self._start, self._memory = deadline, start, memory
        self._child: subprocess.Popen[bytes] | None = None
        self.restarts = -1
        self.cpu_ns = 0
        """Processor time that scoring took in the child, so far."""

    @property
    def alive(self) -> bool:
        """Whether there is a child that could answer."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """The process, 0 when there is none."""
        return self._child.pid if self._child is not None else 0

    def start(self) -> None:
        """Start it and wait until the model is loaded; Unavailable (B641) when that fails. Nothing when it runs."""
        if self.alive:
            return
        self.close()
        self.restarts += 1
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BOUCLE_")}
        environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "ORT_DISABLE_TELEMETRY": "1"}
        environment.setdefault("OMP_NUM_THREADS", "1")
        environment.pop("PYTHONPATH", None)
        try:
            self._child = subprocess.Popen(  # noqa: S603 - the interpreter that was named
                [str(self._python), str(_CHILD), str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,  # Ctrl-C ends the loop, which ends it after the last Block
            )
            # A few bytes when the model is loaded: the first rows need not wait for it within their deadline.
            self._read(2, time.monotonic() + self._start)
        except (OSError, EOFError, MemoryError) as error:
            self.close()
            what = "the model's process cannot be started"
            fix = "name a Python with mlflow and what the model needs (its requirements.txt)"
            raise Unavailable(
                "B641", what, where=str(self._python), why=str(error) or "it ended", fix=fix
            ) from error

    def ask(self, rows: pa.RecordBatch) -> pa.Table:
        """What the model answers, a column of doubles for each output.

        Unavailable (B641) when the child is not there, died, was too slow or too large (it is killed then), B643 when
        the model refuses these rows.
        """
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_batch(rows)
        body = sink.getvalue().to_pybytes()
        try:
            end = time.monotonic() + self._deadline
            self._write(len(body).to_bytes(_LENGTH, "big") + body, end)
            answer = self._read(int.from_bytes(self._read(_LENGTH, end), "big"), end)
            if answer[:1] == b"!":
                what, fix = "the model refuses these rows", "look at the model's own code"
                raise BoucleError("B643", what, why=answer[1:].decode(errors="replace"), fix=fix)
            table = pa.ipc.open_stream(answer).read_all()
            self.cpu_ns += int((table.schema.metadata or {}).get(b"cpu_ns", b"0"))
            self._bounded()
        except (OSError, EOFError, MemoryError, ValueError) as error:  # ArrowInvalid is a ValueError
            self.close()
            raise Unavailable(
                "B641",
                "the model's process did not answer",
                where=str(self._folder),
                why=str(error) or "it ended",
                fix="it is started again; look at its standard error",
            ) from error
        return table

    def resident(self) -> int:
        """Bytes of memory the child takes; 0 when there is none, or when the system does not say."""
        try:
            told = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii")
            return int(told.split()[1]) * resource.getpagesize()
        except (OSError, IndexError, ValueError):
            return 0

    def close(self) -> None:
        """End the child. Safe to call twice."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _bounded(self) -> None:
        if self._memory and (took := self.resident()) > self._memory:
            raise MemoryError(f"it takes {took >> 20} MiB, {self._memory >> 20} MiB are allowed")

    def _wait(self, handle: int, end: float, *, write: bool = False) -> None:
        """Until the pipe is ready; TimeoutError at the deadline, MemoryError when the child grows too large."""
        reads, writes = ([], [handle]) if write else ([handle], [])
        while not any(select.select(reads, writes, [], max(0.0, min(_LOOK, end - time.monotonic())))):
            if time.monotonic() >= end:
                raise TimeoutError("it missed its deadline")
            self._bounded()

    def _read(self, count: int, end: float) -> bytes:
        """So many bytes before the deadline; EOFError when the child ended."""
        child = self._child
        if child is None or child.stdout is None:
            raise EOFError("it ended")
        parts, handle = bytearray(), child.stdout.fileno()
        while len(parts) < count:
            self._wait(handle, end)
            part = os.read(handle, min(count - len(parts), 1 << 20))
            if not part:
                raise EOFError("it ended")
            parts += part
        return bytes(parts)

    def _write(self, body: bytes, end: float) -> None:
        child = self._child
        if child is None or child.stdin is None:
            raise EOFError("it ended")
        handle, rest = child.stdin.fileno(), memoryview(body)
        os.set_blocking(handle, False)
        while rest:
            self._wait(handle, end, write=True)
            rest = rest[os.write(handle, rest) :]


class PyfuncModel:
    """An MLflow model folder outside the path: Blocks in, Blocks out; a child that died is started at the next one.

    `inputs` are given to it as a DataFrame, in this order; its answer becomes the columns `outputs`. In the path it is
    `boucle.serve.score:Score` that runs it.
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
        self.child = PyfuncChild(folder, python, deadline=deadline, start=start)
        self.inputs, self.outputs = list(inputs), list(outputs)

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
            self.child.start()
            answer = self.child.ask(block.rows.select(self.inputs))
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
        self.child.close()

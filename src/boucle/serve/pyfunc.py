"""A model that is no ONNX in the path: MLflow's `pyfunc`, in a child process of the environment it needs.

The path asks it as it asks any other version, with the same deadline, queue and fallbacks. It is given the columns
of its signature as they are, not as float32. A child that dies, hangs or grows too large fails the Block it held; it
is started again beside the path, and until it is there its rows fall back at once.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import structs
from numpy.typing import NDArray

from boucle.errors import BoucleError, SignatureMismatch, Unavailable
from boucle.models.archive import unpack_into
from boucle.models.file import Column, ModelFile
from boucle.models.pyfunc import PyfuncChild
from boucle.serve.declared import PyfuncSpec
from boucle.serve.ready import Identity, Ready

__all__ = ["PyfuncReady", "start_pyfunc"]

Floats = NDArray[np.float64]
_LONGEST = 30.0
"""Seconds between two starts of a child that dies again and again; the first is at once, then twice as long each."""


class PyfuncReady(Ready):
    """One version that runs in a child process. `run` may be asked from several threads."""

    by_rows = True

    def __init__(
        self, identity: Identity, file: ModelFile, spec: PyfuncSpec, python: str, memory: int = 0
    ) -> None:
        super().__init__(identity, file)
        optional = set(file.manifest.optional)
        self._needed = [name for name in self.inputs if name not in optional]
        folder = Path(tempfile.mkdtemp(prefix="boucle-pyfunc-"))
        self.child = PyfuncChild(folder, python, deadline=spec.hang, start=spec.start, memory=memory)
        self._finalizer = weakref.finalize(self, _end, self.child, folder)
        self._one = threading.Lock()
        self._reviving = threading.Event()
        self._ending = threading.Event()
        self._deaths = 0
        try:
            unpack_into(file.content, folder)
        except (ValueError, OSError) as error:
            raise BoucleError(
                "B693",
                f"{identity.name} {identity.version} cannot be unpacked",
                why=str(error),
                fix="log it again",
            ) from error

    def begin(self) -> None:
        """Load it and let it score a row of zeros, so that the first rows need not wait.

        Unavailable (B641) when it cannot be loaded, B653 when it gives another number of columns than it says. A
        model that refuses zeros is none the worse for it.
        """
        self.child.start()
        rows = pa.record_batch(
            [pa.array([0], pa.int64()).cast(one.type) if _numeric(one.type) else _blank(one.type)
             for one in self.signature],
            schema=self.signature,
        )  # fmt: skip
        try:
            self.run(rows)
        except SignatureMismatch:
            raise
        except BoucleError as error:
            if error.code != "B643":
                raise

    def run(self, given: Any) -> Floats:
        """Outputs (rows, outputs) of rows with the columns of the signature.

        Unavailable (B641) at once while the child is being started again; B643 when it refuses the rows.
        """
        if self._reviving.is_set():
            raise Unavailable(
                "B641", "the model's process is being started", fix="its rows fall back until then"
            )
        with self._one:
            try:
                table = self.child.ask(given)
            except Unavailable:
                self._revive()
                raise
        self._deaths = 0
        if table.num_columns != len(self.outputs) or table.num_rows != len(given):
            raise SignatureMismatch(
                "B653",
                f"{self.identity.name} {self.identity.version} gives {table.num_columns} columns of {table.num_rows}",
                why=f"its manifest names {len(self.outputs)} outputs, of {len(given)} rows",
                fix="name its outputs: pyfunc: {outputs: [...]}",
            )
        # Cast although our child sends doubles: what stands behind the pipe is somebody else's code.
        return np.column_stack([column.cast(pa.float64()).to_numpy() for column in table.columns])

    def sound(self, given: pa.RecordBatch) -> NDArray[np.bool_]:
        """Which rows have every value that the signature calls required."""
        sound = np.ones(len(given), bool)
        for name in self._needed:
            column = given.column(name)
            there = pc.is_finite(column) if pa.types.is_floating(column.type) else column.is_valid()
            if there.null_count or there.false_count:
                sound &= pc.fill_null(there, fill_value=False).to_numpy(zero_copy_only=False)
        return sound

    def some(self, given: pa.RecordBatch, index: Any) -> pa.RecordBatch:
        """Some of the rows."""
        return given.take(pa.array(index))

    def cpu_ns(self) -> int:
        """Processor time of this thread and of the child, so far."""
        return time.thread_time_ns() + self.child.cpu_ns

    def close(self) -> None:
        """End the child and take its folder away. Safe to call twice."""
        self._ending.set()
        if self.child.pid:
            with contextlib.suppress(ProcessLookupError):  # whoever waits for its answer is told at once
                os.kill(self.child.pid, signal.SIGKILL)
        with self._one:
            self._finalizer()

    def _revive(self) -> None:
        """Start the child again, beside the path."""
        if self._reviving.is_set() or self._ending.is_set():
            return
        self._reviving.set()
        name = f"boucle pyfunc {self.identity.name}"
        threading.Thread(target=self._start_again, name=name, daemon=True).start()

    def _start_again(self) -> None:
        try:
            while not self._ending.wait(min(_LONGEST, 2.0**self._deaths - 1)):
                self._deaths += 1
                with self._one:
                    if self._ending.is_set():
                        return
                    try:
                        self.child.start()
                    except Unavailable:
                        continue
                    return
        finally:
            self._reviving.clear()


def start_pyfunc(
    file: ModelFile, number: int, spec: PyfuncSpec, python: str, *, memory: int = 0
) -> PyfuncReady:
    """A version that is loaded in a child and has scored once; B692 when nothing says by which Python."""
    if not python:
        raise BoucleError(
            "B692",
            f"nothing says which Python runs {file.manifest.name}, a pyfunc",
            why="it needs an environment with mlflow and what the model was made with",
            fix='boucle.toml: [models] python = "envs/churn/bin/python", or pyfunc: {python: …} at the step',
        )
    if spec.outputs:
        outputs = tuple(Column(one) for one in spec.outputs)
        file = ModelFile(structs.replace(file.manifest, outputs=outputs), file.content)
    ready = PyfuncReady(
        Identity(file.manifest.name, number, file.manifest.sha256), file, spec, python, memory
    )
    try:
        ready.begin()
    except BaseException:
        ready.close()
        raise
    return ready


def _end(child: PyfuncChild, folder: Path) -> None:
    child.close()
    shutil.rmtree(folder, ignore_errors=True)


def _numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _blank(kind: pa.DataType) -> pa.Array:
    return pa.array([0], pa.int64()).cast(kind) if pa.types.is_timestamp(kind) else pa.array([""]).cast(kind)

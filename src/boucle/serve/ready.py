"""A version of a model that is loaded, verified and warm: it can score the next row at once."""

import resource
import threading
import time
from functools import cache
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.errors import BoucleError, SignatureMismatch
from boucle.models.file import ModelFile
from boucle.models.onnx import OnnxModel

__all__ = ["Identity", "OnnxReady", "Ready", "check_gives", "failures", "prepare"]

Floats32 = NDArray[np.float32]

_BOUND = 256
"""Rows of the largest Block for which buffers are kept: some hundred kB for all sizes."""
_WARM = (1, 64)
"""Rows of the Blocks a version scores before it may decide; of one that scores row by row only the first."""


class Identity(Struct, frozen=True):
    """Which model: what it is called, its number in the registry (0: of a folder), the SHA-256 of its bytes."""

    name: str
    number: int
    sha256: str

    @property
    def version(self) -> str:
        """As rows and metrics show it."""
        return str(self.number) if self.number else self.sha256[:12]


class Ready:
    """One version that can score: `run` gives outputs (rows, outputs) of what `some` and the path cut out for it."""

    by_rows = False
    """Whether it is given rows as they are; else a matrix of float32 (rows, inputs)."""

    def __init__(self, identity: Identity, file: ModelFile) -> None:
        self.identity, self.file = identity, file
        self.signature = file.manifest.signature()
        self.inputs: list[str] = self.signature.names
        self.outputs = [one.name for one in file.manifest.outputs]

    def run(self, given: Any) -> NDArray[Any]:
        """The outputs of these rows; one of `failures` when it cannot."""
        raise NotImplementedError

    def sound(self, given: Any) -> NDArray[np.bool_]:
        """Which of these rows have everything the model needs."""
        return np.asarray(np.isfinite(given).all(axis=1), bool)

    def some(self, given: Any, index: Any) -> Any:
        """Some of the rows."""
        return given[index]

    def cpu_ns(self) -> int:
        """Processor time so far, to be compared with itself: of this thread, and of whoever scores beside it."""
        return time.thread_time_ns()

    def close(self) -> None:
        """Give back what it holds beyond memory. Safe to call twice."""


class OnnxReady(Ready):
    """A version that ONNX Runtime scores, in this process."""

    def __init__(self, identity: Identity, file: ModelFile) -> None:
        super().__init__(identity, file)
        self.model = OnnxModel(file)
        self._bound: dict[int, tuple[Any, Floats32, Floats32]] = {}
        self._binds = self.model.session.get_outputs()[0].type == "tensor(float)"
        self._one = threading.Lock()

    def run(self, given: Floats32) -> Floats32:
        """The outputs, whatever the shape the model gives them in.

        By buffers that are bound once for each number of rows, which saves ONNX Runtime some 10 µs a call; without
        them while another thread uses them, and for Blocks that are large or of a model that gives other shapes.
        """
        rows = len(given)
        if not self._binds or not 0 < rows <= _BOUND or not self._one.acquire(blocking=False):
            return self.model.run(given).reshape(rows, -1)
        try:
            return self._by_buffers(given)
        finally:
            self._one.release()

    def _by_buffers(self, matrix: Floats32) -> Floats32:
        session, rows = self.model.session, len(matrix)
        if self.model.together or rows == 1:
            binding, given, taken = self._buffers(rows)
            given[:] = matrix
            session.run_with_iobinding(binding)
            return taken.copy()
        binding, given, taken = self._buffers(1)
        answer = np.empty((rows, len(self.outputs)), np.float32)
        for row in range(rows):
            given[0] = matrix[row]
            session.run_with_iobinding(binding)
            answer[row] = taken[0]
        return answer

    def _buffers(self, rows: int) -> tuple[Any, Floats32, Floats32]:
        found = self._bound.get(rows)
        if found is None:
            given = np.zeros((rows, len(self.inputs)), np.float32)
            taken = np.zeros((rows, len(self.outputs)), np.float32)
            binding = self.model.session.io_binding()
            binding.bind_input(self.model.input, "cpu", 0, np.float32, given.shape, given.ctypes.data)
            name = self.model.outputs[0]
            binding.bind_output(name, "cpu", 0, np.float32, taken.shape, taken.ctypes.data)
            found = self._bound[rows] = (binding, given, taken)
        return found

    def warm(self, rows: int) -> Floats32:
        """Score zeros; where bound buffers give something else than ONNX Runtime's own, they are not used."""
        zeros = np.zeros((rows, len(self.inputs)), np.float32)
        plain = self.model.run(zeros).reshape(rows, -1)
        try:
            self._binds = self._binds and np.array_equal(self.run(zeros), plain, equal_nan=True)
        except failures():
            self._binds = False
        return plain


def prepare(file: ModelFile, number: int, *, memory: int = 0) -> OnnxReady:
    """Load and warm a version: its first score must not wait for an allocation.

    B653 when that takes more than `memory` bytes, or when what it gives of zeros has not the shape of its manifest.
    """
    before = _resident()
    identity = Identity(file.manifest.name, number, file.manifest.sha256)
    ready = OnnxReady(identity, file)
    for rows in _WARM if ready.model.together else _WARM[:1]:
        given = _warm(ready, rows)
        if given.shape != (rows, len(ready.outputs)):
            raise SignatureMismatch(
                "B653",
                f"{identity.name} {identity.version} gives {given.shape[1]} numbers a row",
                why=f"its manifest names {len(ready.outputs)} outputs",
                fix="save model and manifest together",
            )
    took = _resident() - before
    if memory and took > memory:
        raise BoucleError(
            "B653",
            f"{identity.name} {identity.version} takes {took >> 20} MiB",
            why=f"{memory >> 20} MiB are allowed",
            fix="allow more (memory:), or train a smaller model",
        )
    return ready


@cache
def failures() -> tuple[type[Exception], ...]:
    """What scoring may raise: ONNX Runtime has a class per kind of failure, without a common one; a pyfunc our own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [one for one in vars(state).values() if isinstance(one, type) and issubclass(one, Exception)]
    return (*own, BoucleError, MemoryError, RuntimeError, ValueError)


def _warm(ready: OnnxReady, rows: int) -> Floats32:
    try:
        return ready.warm(rows)
    except failures() as error:
        identity = ready.identity
        raise BoucleError(
            "B653",
            f"{identity.name} {identity.version} cannot score",
            why=str(error),
            fix="export it again for the installed onnxruntime",
        ) from error


def check_gives(ready: Ready, outputs: list[str], stream: str) -> None:
    """B654 when a version gives other outputs than the one it would take the place of."""
    if outputs and ready.outputs != outputs:
        identity = ready.identity
        raise SignatureMismatch(
            "B654",
            f"{identity.name} {identity.version} gives other outputs",
            where=stream,
            why=f"{', '.join(ready.outputs)} instead of {', '.join(outputs)}",
            fix="promote a version with the same outputs, or declare it as a step of its own",
        )


def _resident() -> int:
    """Bytes of memory in use; the most there ever were where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as told:  # noqa: PTH123 - read at each promotion
            return int(told.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

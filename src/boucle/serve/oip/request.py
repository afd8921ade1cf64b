"""A question to a model and its answer, whichever wire they came over."""

from msgspec import Struct

from boucle.serve.oip.tensor import Tensor

__all__ = ["Answer", "InferRequest", "WantedOutput"]


class WantedOutput(Struct, frozen=True):
    """An output that was asked for; `binary` is None where the request as a whole decides."""

    name: str
    binary: bool | None = None


class InferRequest(Struct, frozen=True):
    """The rows to score, and what is wanted of the answer."""

    inputs: tuple[Tensor, ...]
    id: str = ""
    outputs: tuple[WantedOutput, ...] = ()
    """None: all of them."""
    binary: bool = False
    """Whether outputs are wanted as bytes."""
    timeout: float | None = None
    """Seconds the client waits: the parameter `timeout`, microseconds, of Triton's scheduling extension."""

    @property
    def rows(self) -> int:
        """How many, by the first tensor; whether the others agree is not said."""
        return self.inputs[0].shape[0] if self.inputs and self.inputs[0].shape else 0


class Answer(Struct, frozen=True):
    """Outputs in the order they were asked for."""

    model: str
    version: str
    id: str
    outputs: tuple[Tensor, ...]

"""Commands that arrive from outside over the bus: decoded strictly, then treated like all others.

    {"id": "c-17", "target": "plc/press-2/speed_setpoint", "verb": "set", "value": 30,
     "not_after": "2026-11-21T14:00:05Z"}

One object a message; `not_after` is RFC 3339 text or integer nanoseconds; `because` (ids of events),
`needs_approval` and `says` may be given. A retained message is an old order a broker repeats: it is
refused, with a receipt, and so is one that expired. What is no command at all goes to quarantine.
"""

from collections.abc import Callable
from typing import Annotated, Any, Protocol

import msgspec
import pyarrow as pa
from msgspec import Meta, Struct

from boucle.block import Block
from boucle.clock import Clock, Nanos
from boucle.event import Command
from boucle.quality.json_rows import instant
from boucle.quality.reject import Reject, reject

__all__ = ["Inlet", "Submit"]

_LARGEST = 65_536
_I64 = 1 << 63

_Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Submit(Protocol):
    """`Dispatcher.submit`."""

    def __call__(self, command: Command, *, retained: bool = False) -> None:
        """Take a Command; returns at once."""
        ...


class _Order(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: _Name
    target: _Name
    verb: _Name
    value: int | float | dict[str, Any]
    not_after: Annotated[int, Meta(ge=0, le=_I64 - 1)] | str
    because: Annotated[list[_Name], Meta(max_length=100)] = []
    needs_approval: bool = False
    says: Annotated[dict[str, str], Meta(max_length=10)] = {}


class Inlet:
    """Turns Blocks of messages into submitted Commands; what cannot be one is given back as Rejects."""

    def __init__(
        self, submit: Submit, clock: Clock, *, tell: Callable[[Command], None] | None = None
    ) -> None:
        self._submit, self._clock, self._tell = submit, clock, tell
        self._orders = msgspec.json.Decoder(_Order)

    def take(self, block: Block) -> list[Reject]:
        """Submit every Command of a WIRE Block; the Rejects are for quarantine."""
        rejects = []
        columns = block.rows.columns
        for topic, payload, received, retained in zip(
            columns[0].to_pylist(),
            columns[1].to_pylist(),
            columns[2].view(pa.int64()).to_pylist(),
            columns[3].to_pylist(),
            strict=True,
        ):
            try:
                command = self._command(payload, received)
            except msgspec.ValidationError as error:
                rejects.append(
                    reject(block.stream, _reason(str(error)), str(error), received, payload, topic, "json")
                )
            except (ValueError, RecursionError) as error:
                rejects.append(
                    reject(block.stream, "malformed", str(error), received, payload, topic, "json")
                )
            else:
                if self._tell is not None:
                    self._tell(command)
                self._submit(command, retained=retained)
        return rejects

    def _command(self, payload: bytes, received: Nanos) -> Command:
        if len(payload) > _LARGEST:
            raise ValueError(f"{len(payload)} bytes, at most {_LARGEST} are taken")
        order = self._orders.decode(payload)
        ends = instant(order.not_after) if isinstance(order.not_after, str) else order.not_after
        return Command(
            id=order.id,
            target=order.target,
            verb=order.verb,
            value=order.value,
            not_after=ends,
            because=tuple(order.because),
            needs_approval=order.needs_approval,
            issued_at=received,
            says=order.says,
        )


def _reason(said: str) -> str:
    if said.startswith("Object missing required field"):
        return "missing"
    return "unknown_column" if said.startswith("Object contains unknown field") else "wrong_type"

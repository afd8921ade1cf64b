"""Writes set-points to a PLC over OPC UA: asks the machine first, writes, reads back."""

from collections import OrderedDict
from typing import Any, Protocol

import msgspec

from boucle.act.guard import Guard, Refusal, Situation, is_number
from boucle.act.lane import IN_DOUBT
from boucle.address import Address, parse_address
from boucle.bus.opcua import OpcUaConnection, Value
from boucle.clock import SECOND, Clock, SystemClock
from boucle.errors import BoucleError, CommandRefused, Unavailable
from boucle.event import Command, Outcome, Receipt
from boucle.product.duration import seconds

__all__ = ["PlcActuator"]

_NOTHING_SENT = "B321"
_BY_PLC = {"BadOutOfRange": "out_of_bounds", "BadUserAccessDenied": "interlock", "BadInvalidState": "mode"}
_REMEMBERED = 10_000
_LOOK_AGAIN = 0.02


class _Line(Protocol):
    def open(self) -> None: ...
    def state(self) -> str: ...
    def read(self, nodes: list[str]) -> list[Value]: ...
    def write(self, node: str, value: float) -> Value | None: ...
    def close(self) -> None: ...


class PlcActuator:
    """Targets are `plc/<machine>/<signal>`; `nodes` says which node that is.

    Interlocks, mode and present value are read in one request right before the write, so that a
    person who sets the interlock wins. A PLC may show a new value only after its next scan: a
    read-back that differs is repeated for `settle` before it counts as a mismatch.
    """

    idempotent = False

    def __init__(
        self,
        address: Address | str,
        *,
        guard: Guard | None = None,
        clock: Clock | None = None,
        ns_uri: str = "",
        nodes: str = "{machine}.{signal}",
        settle: str | float = "500ms",
        timeout: float = 1.0,
        connection: _Line | None = None,
    ) -> None:
        where = parse_address(address, "actuator") if isinstance(address, str) else address
        self.guard = guard
        """Without one everything is refused; the dispatcher gives its own."""
        self._clock = clock or SystemClock()
        self._nodes = _template(nodes, where)
        self._settle = seconds(settle)
        self._line: _Line = connection or OpcUaConnection(
            f"opc.tcp://{where.host}:{where.port or 4840}/{where.path}".rstrip("/"),
            ns_uri=ns_uri or where.options.get("ns", ""),
            ns_index=int(where.options.get("index", "2")),
            timeout=timeout,
            clock=self._clock,
        )
        self._done: OrderedDict[str, Receipt] = OrderedDict()

    def open(self) -> None:
        """Start connecting; returns at once."""
        self._line.open()

    def state(self) -> str:
        """`connected`, or why not."""
        return self._line.state()

    def close(self) -> None:
        """Disconnect. Safe to call twice."""
        self._line.close()

    def read(self, target: str) -> Any:
        """The present value; Unavailable when the PLC does not answer or the value is bad."""
        [told] = self._line.read([self._node(target)])
        if told.status != "Good" or told.value is None:
            raise Unavailable("B710", f"{target} cannot be known", why=told.status, fix="see the PLC")
        return told.value

    def send(self, command: Command) -> Receipt:
        """Ask, write, read back. Unavailable only when nothing was sent."""
        if command.id in self._done:
            first = self._done[command.id]
            why = "this command was already sent"
            return self._receipt(command, Outcome.duplicate, "duplicate", why, read_back=first.read_back)
        refusal, before = self._ask(command)
        if refusal is not None:
            return self._receipt(command, Outcome.refused, refusal.code, refusal.why, before, before)
        receipt = self._write(command, before)
        self._done[command.id] = receipt
        if receipt.code == IN_DOUBT:
            # It may be sent again once the machine was found unchanged.
            del self._done[command.id]
        elif len(self._done) > _REMEMBERED:
            self._done.popitem(last=False)
        return receipt

    def _ask(self, command: Command) -> tuple[Refusal | None, Any]:
        if self.guard is None or (limits := self.guard.limits(command.target)) is None:
            return Refusal("unknown_target", f"no limits are declared for {command.target}"), None
        machine, _, signal = command.target.rpartition("/")
        names = [signal, *limits.watched()]
        told = self._line.read([self._node(f"{machine}/{name}") for name in names])
        present = {
            name: value.value if value.status == "Good" else None
            for name, value in zip(names, told, strict=True)
        }
        world = Situation(now=self._clock.now(), deadline=command.not_after, approved=True)
        return self.guard.before_write(command, world, present), present[signal]

    def _write(self, command: Command, before: Any) -> Receipt:
        try:
            told = self._line.write(self._node(command.target), float(command.value))
        except CommandRefused as error:
            code = _BY_PLC.get(error.why, "refused_by_plc")
            why = f"the PLC said {error.why}"
            return self._receipt(command, Outcome.refused, code, why, before, before)
        except Unavailable as error:
            if error.code == _NOTHING_SENT:
                raise
            return self._receipt(command, Outcome.failed, IN_DOUBT, error.why or error.what, before)
        if told is not None and told.status == "Good" and self._taken(command, told.value):
            return self._receipt(command, Outcome.applied, "", "", before, told.value)
        return self._read_back(command, before)

    def _read_back(self, command: Command, before: Any) -> Receipt:
        until = self._clock.now() + int(self._settle * SECOND * self._clock.speed)
        while True:
            try:
                back = self.read(command.target)
            except Unavailable as error:
                why = f"written, and it could not be read back: {error.why or error.what}"
                return self._receipt(command, Outcome.failed, IN_DOUBT, why, before)
            if self._taken(command, back):
                return self._receipt(command, Outcome.applied, "", "", before, back)
            if self._clock.now() >= until:
                why = f"{command.value:g} was written and {back!r} is read back"
                return self._receipt(command, Outcome.failed, "read_back", why, before, back)
            self._clock.sleep(_LOOK_AGAIN * self._clock.speed)

    def recover(self, command: Command) -> Receipt:
        """Applied when the PLC has the value; else failed, with the value it has."""
        back = self.read(command.target)
        if self._taken(command, back):
            why = "its answer was lost; the PLC has the value"
            receipt = self._receipt(command, Outcome.applied, "", why, read_back=back)
            self._done[command.id] = receipt
            return receipt
        why = f"it was sent without an answer, and the PLC has {back!r}"
        return self._receipt(command, Outcome.failed, IN_DOUBT, why, read_back=back)

    def _taken(self, command: Command, back: Any) -> bool:
        limits = self.guard.limits(command.target) if self.guard is not None else None
        tolerance = limits.tolerance if limits is not None else 0.0
        return is_number(back) and is_number(command.value) and abs(back - command.value) <= tolerance

    def _receipt(
        self,
        command: Command,
        outcome: Outcome,
        code: str,
        why: str,
        before: Any = None,
        read_back: Any = None,
    ) -> Receipt:
        now = self._clock.now()
        told = Receipt(command.id, command.target, outcome, now, why, code)
        return msgspec.structs.replace(told, before=before, read_back=read_back)

    def _node(self, target: str) -> str:
        machine, _, signal = target.partition("/")[2].rpartition("/")
        return self._nodes.format(machine=machine, signal=signal)


def _template(nodes: str, where: Address) -> str:
    try:
        nodes.format(machine="", signal="")
    except (KeyError, IndexError, ValueError) as error:
        fix = "use {machine} and {signal}: nodes: '{machine}.{signal}'"
        raise BoucleError(
            "B207", f"nodes: {nodes!r} cannot be filled in", where=where.text, why=str(error), fix=fix
        ) from error
    return nodes

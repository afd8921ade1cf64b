"""Commands from outside the loop: taken from the bus, guarded like all others, answered with a receipt."""

import msgspec
import pyarrow as pa

from boucle.act.inlet import Inlet
from boucle.address import adapter, parse_address
from boucle.block import Block, Position
from boucle.clock import Clock
from boucle.errors import Unavailable
from boucle.event import Command, Receipt
from boucle.loop.action import Action
from boucle.loop.intake import open_source
from boucle.loop.plan import Plan
from boucle.ports import WIRE, Sink, Source
from boucle.quality.quarantine import Quarantine

__all__ = ["CommandInlet"]


class CommandInlet:
    """The declared `commands:` of a product: where they come in, and where their receipts go."""

    def __init__(
        self,
        source: Source,
        receipts: Sink | None,
        topic: str,
        clock: Clock,
        action: Action,
        quarantine: Quarantine,
    ) -> None:
        self.source = source
        self._receipts, self._topic, self._clock = receipts, topic, clock
        self._quarantine = quarantine
        self._inlet = Inlet(action.dispatcher.submit, clock, tell=action.expect)
        if receipts is not None:
            action.answer = self._answer

    @classmethod
    def declared(
        cls, plan: Plan, clock: Clock, action: Action, quarantine: Quarantine
    ) -> "CommandInlet | None":
        """The inlet of a product; None when it takes no commands from outside."""
        project = plan.project
        spec = project.loop.commands
        if spec is None:
            return None
        address = parse_address(project.settings.fill(spec.from_), "source")
        source = open_source(address, "commands", clock, project.id, {})
        sink, topic = None, ""
        if spec.receipts:
            where = parse_address(project.settings.fill(spec.receipts), "sink")
            sink, topic = adapter(where, "sink")(where, client_id=f"boucle-{project.id}-receipts"), where.path
        return cls(source, sink, topic, clock, action, quarantine)

    def open(self) -> None:
        """Start listening."""
        if self._receipts is not None:
            self._receipts.open()
        self.source.open()

    def take(self, wait: float) -> None:
        """Submit what came within `wait` seconds; what is no command goes to quarantine."""
        block = self.source.poll(wait)
        if block is None:
            return
        rejects = self._inlet.take(block)
        if rejects:
            self._quarantine.add(rejects)
            self._quarantine.flush()
        self.source.commit(block.position)

    def _answer(self, command: Command, receipt: Receipt) -> None:
        assert self._receipts is not None
        body = msgspec.json.encode({"command": command.id, **msgspec.to_builtins(receipt)})
        moment = pa.array([self._clock.now()], WIRE.field("received").type)
        columns = [pa.array([self._topic]), pa.array([body], pa.binary()), moment, pa.array([False])]
        rows = pa.record_batch(columns, schema=WIRE)
        self._receipts.write(Block("receipts", rows, 0, Position("receipts", 0)))

    def close(self) -> None:
        """Stop listening; receipts that could not be sent are in the journal all the same."""
        self.source.close()
        if self._receipts is not None:
            try:
                self._receipts.flush()
            except Unavailable:
                # The broker is gone; the journal holds every receipt, and says so better than we could.
                return
            finally:
                self._receipts.close()

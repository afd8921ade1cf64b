"""The ports of the house: what an adapter must do, and the facts it must tell.

Each docstring states the hard rule; `boucle.testing.conformance` holds an adapter to it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import pyarrow as pa
from msgspec import Struct

from boucle.block import Block, Position
from boucle.clock import Nanos
from boucle.event import Command, Receipt

__all__ = [
    "WIRE",
    "Actuator",
    "Counts",
    "Describes",
    "Facts",
    "From",
    "How",
    "Model",
    "Operator",
    "Part",
    "Partial",
    "Sink",
    "Source",
    "Table",
    "Traced",
    "Traces",
]

WIRE = pa.schema(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("payload", pa.binary(), nullable=False),
        pa.field("received", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("retained", pa.bool_(), nullable=False),
    ]
)
"""The schema of a Block of undecoded messages; `boucle.quality.decode` turns it into typed rows."""


class Facts(Struct, frozen=True):
    """What a source or sink promises; the plan checks it against the contract."""

    ordered: bool
    """Rows of one partition arrive in the order they were produced."""
    replayable: bool
    """`open` with an earlier Position delivers the same rows again."""
    delivery: Literal["at-most-once", "at-least-once", "exactly-once"]


@runtime_checkable
class Source(Protocol):
    """Where Blocks come from.

    Hard rule: after `open(resume)` the first Block delivered is the one right *after* `resume`,
    and nothing between two Blocks is dropped in silence. A server that is absent or gone never
    raises out of `poll`: it returns None, reconnects with backoff, and `state` says so.
    """

    facts: Facts

    def open(self, resume: Position | None = None) -> None:
        """Start delivering after `resume` (None: from now, or from the start for a file)."""
        ...

    def poll(self, wait: float) -> Block | None:
        """The next Block, or None when none came within `wait` seconds."""
        ...

    def commit(self, upto: Position) -> None:
        """Everything up to and including `upto` is durable downstream; it need not come again."""
        ...

    def state(self) -> str:
        """`connected`, `finished`, or why not, in words for a person."""
        ...

    def close(self) -> None:
        """Give back sockets, files and threads. Safe to call twice."""
        ...


@runtime_checkable
class Sink(Protocol):
    """Where Blocks go. Hard rule: when `flush` returns, everything written before is durable."""

    def open(self) -> None:
        """Get ready to write."""
        ...

    def write(self, block: Block) -> None:
        """Accept a Block; it may still be in memory when this returns."""
        ...

    def flush(self) -> None:
        """Return when everything written so far survives a power cut, or raise `Unavailable`."""
        ...

    def close(self) -> None:
        """Flush, then give back files and sockets. Safe to call twice."""
        ...


@runtime_checkable
class Operator(Protocol):
    """A step of the plan. Hard rule: what it emits depends on its Blocks only, never on the clock.

    `restore(snapshot())` on a fresh operator gives one that continues exactly as the first would.
    """

    def step(self, block: Block) -> Sequence[Block]:
        """Take a Block, give zero or more Blocks."""
        ...

    def snapshot(self) -> bytes:
        """The state, as bytes."""
        ...

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot of the same version."""
        ...


class Later(Protocol):
    """Bytes as they are now, to be copied when they are read, by whatever thread."""

    def __len__(self) -> int: ...

    def __bytes__(self) -> bytes: ...


Part = bytes | memoryview | Later


@runtime_checkable
class Partial(Protocol):
    """An Operator whose state is taken in parts, so that a checkpoint costs what changed since the one before.

    Hard rule: what `parts` gave says the state as it was then (it is written while the path goes on), and a fresh
    operator given the newest of every part ever told continues exactly as the first would.
    """

    def parts(self, *, everything: bool) -> Mapping[str, Part]:
        """State by part: those changed since the last call (all when `everything`); an empty value: the part is gone.

        A name is unique within the operator and not empty: `card/nodes/17`.
        """
        ...

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Continue from them; each is read when it is asked for. They count as told: next come those that change."""
        ...


@runtime_checkable
class Describes(Protocol):
    """An Operator that can say what it remembers, for a person: `boucle state`."""

    def describe(self, key: Mapping[str, str] | None = None) -> dict[str, Any]:
        """`keys`, `open_windows`, `waiting_rows`, `oldest` and `newest` (event times, ns), as far as they apply.

        With `key` (columns as text: {"card": "42"}) what is remembered of this key, in `remembered`: a list of rows.
        """
        ...


@runtime_checkable
class Counts(Protocol):
    """An Operator that says what became of its rows, where more can become of them than in, out and late."""

    @property
    def counts(self) -> dict[str, int]:
        """What happened to how many, since the state began; names are those of `/metrics`."""
        ...


How: TypeAlias = Literal[
    "IDENTITY", "TRANSFORMATION", "AGGREGATION",
    "JOIN", "GROUP_BY", "FILTER", "SORT", "WINDOW", "CONDITIONAL", "UNKNOWN",
]  # fmt: skip
"""OpenLineage's words for what becomes of a column: the first three carry its values (DIRECT), the others decide on
rows (INDIRECT). UNKNOWN is ours: any column may have been used, nobody declared which."""


class From(Struct, frozen=True):
    """An input column that something is made from; `says` is the step in words: `sum over 24h by card`."""

    stream: str
    column: str
    how: How = "IDENTITY"
    says: str = ""


class Traced(Struct, frozen=True):
    """Where the columns of a step's output come from."""

    columns: dict[str, tuple[From, ...]]
    """In the order of the output; what a column needs of its own, keys of its group included."""
    rows: tuple[From, ...] = ()
    """What decides which rows there are: filters, joins, groups."""
    unknown: str = ""
    """Why columns may be missing here; then any output column may come from any input column."""


@runtime_checkable
class Traces(Protocol):
    """An Operator class that can say, from its declaration alone, what its output is made from.

    Hard rule: nothing is guessed. What the declaration does not tell is said in `unknown`.
    """

    @classmethod
    def trace(cls, inputs: Mapping[str, Sequence[str]], **declared: Any) -> Traced:
        """`inputs`: stream → its columns, in the order of `from`; `declared`: the step's `with`."""
        ...


@runtime_checkable
class Table(Protocol):
    """A table with history and transactions."""

    def append(self, block: Block, *, app: str = "", transaction: int | None = None) -> int:
        """Add rows, return the version; the same (app, transaction) twice adds them once."""
        ...

    def scan(
        self, since: Nanos | None = None, until: Nanos | None = None, version: int | None = None
    ) -> Iterator[Block]:
        """Rows whose `at` lies in [since, until), as of `version`."""
        ...


@runtime_checkable
class Model(Protocol):
    """A scorer. Hard rule: a Block whose columns are not `signature` raises SignatureMismatch."""

    signature: pa.Schema

    def score(self, block: Block) -> Block:
        """The Block with the model's outputs appended as columns."""
        ...


@runtime_checkable
class Actuator(Protocol):
    """Something that can be told to act.

    Hard rule: `send` returns a Receipt for everything the machine answered, refusals included;
    it raises `Unavailable` only when the machine could not be reached *before* anything was sent.
    Sending the same Command id twice moves the machine once.
    """

    def open(self) -> None:
        """Start connecting; returns at once."""
        ...

    def send(self, command: Command) -> Receipt:
        """Do it, read it back, say how it ended."""
        ...

    def read(self, target: str) -> Any:
        """The present value of `target`; raises `Unavailable` when it cannot be known."""
        ...

    def state(self) -> str:
        """`connected`, or why not, in words for a person."""
        ...

    def close(self) -> None:
        """Give back the connection. Safe to call twice."""
        ...

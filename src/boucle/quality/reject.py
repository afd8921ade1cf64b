"""A refused reading: why, and the bytes to judge it again by."""

import hashlib

import pyarrow as pa
from msgspec import Struct

from boucle.block import Block, Position
from boucle.clock import Nanos
from boucle.errors import ContractBroken
from boucle.ports import WIRE

__all__ = ["QUARANTINE", "REASONS", "Reject", "Unreadable", "reject", "rejects_as_rows"]

REASONS: dict[str, dict[str, str]] = {
    "malformed": {"en": "the payload cannot be read", "fr": "la charge utile est illisible"},
    "too_large": {
        "en": "more bytes or rows than a message may have",
        "fr": "plus d'octets ou de lignes qu'un message ne peut en avoir",
    },
    "empty": {"en": "the payload holds no row", "fr": "la charge utile ne contient aucune ligne"},
    "wrong_type": {"en": "a value of another type", "fr": "une valeur d'un autre type"},
    "missing": {"en": "a required value is missing", "fr": "une valeur obligatoire manque"},
    "unknown_column": {"en": "a column nobody declared", "fr": "une colonne que personne n'a déclarée"},
    "not_finite": {"en": "NaN or infinity", "fr": "NaN ou infini"},
    "out_of_range": {"en": "outside the declared range", "fr": "hors de la plage déclarée"},
    "unknown_sensor": {"en": "a sensor or machine nobody declared", "fr": "capteur ou machine non déclaré"},
    "not_allowed": {"en": "not one of the allowed values", "fr": "valeur non autorisée"},
    "pattern": {"en": "not of the declared form", "fr": "pas de la forme déclarée"},
    "length": {"en": "longer or shorter than declared", "fr": "plus long ou plus court que déclaré"},
    "multiple": {"en": "not a multiple of the declared step", "fr": "pas un multiple du pas déclaré"},
    "format": {"en": "not of the declared format", "fr": "pas au format déclaré"},
    "repeated_items": {"en": "an item occurs twice", "fr": "un élément apparaît deux fois"},
    "future": {"en": "a time in the future", "fr": "un horodatage dans le futur"},
}
"""Every reason a reading is refused for, in words for a screen."""

QUARANTINE = pa.schema(
    [
        pa.field("at", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("payload", pa.binary(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
    ]
)
"""The columns of a `quarantine` table."""

_DETAIL = 240


class Unreadable(ContractBroken):
    """A payload or row that cannot be decoded; `reason` is one of REASONS."""

    def __init__(self, reason: str, what: str) -> None:
        super().__init__("B401", what, why=REASONS[reason]["en"])
        self.reason = reason


class Reject(Struct, frozen=True):
    """One reading that was not what its contract promised.

    `reason` is one of REASONS, `detail` says which value, `at` is when it was refused. `payload`
    decodes, in `format`, to exactly the refused reading; of a payload too long to keep only the
    beginning is there, and `size` and `sha256` are those of the whole.
    """

    source: str
    reason: str
    detail: str
    at: Nanos
    payload: bytes
    topic: str = ""
    format: str = ""
    size: int = 0
    sha256: str = ""
    rule: str = ""
    """The id of the contract's rule that it broke; empty when what came was no row of the contract at all."""

    def whole(self) -> bool:
        """Whether the payload is complete, so that it can be judged again."""
        return not self.sha256

    def wire(self) -> Block:
        """The payload as the message it came in, ready for a Decoder."""
        rows = pa.RecordBatch.from_pydict(
            {"topic": [self.topic], "payload": [self.payload], "received": [self.at], "retained": [False]},
            schema=WIRE,
        )
        return Block(self.source, rows, 0, Position("quarantine", 0))

    def cut(self, keep: int) -> "Reject":
        """The same with at most `keep` bytes of payload; what is left out is known by its sha256."""
        if len(self.payload) <= keep or self.sha256:
            return self
        return reject(self.source, self.reason, self.detail, self.at, self.payload, self.topic,
                      self.format, keep=keep, rule=self.rule)  # fmt: skip


def reject(
    source: str,
    reason: str,
    detail: str,
    at: Nanos,
    payload: bytes,
    topic: str = "",
    format: str = "",  # noqa: A002 - the word of the product file
    keep: int = 1 << 20,
    rule: str = "",
) -> Reject:
    """Make a Reject that keeps at most `keep` bytes of a payload."""
    said = detail if len(detail) <= _DETAIL else detail[: _DETAIL - 1] + "…"
    if len(payload) <= keep:
        return Reject(source, reason, said, at, payload, topic, format, len(payload), rule=rule)
    digest = hashlib.sha256(payload).hexdigest()
    return Reject(source, reason, said, at, payload[:keep], topic, format, len(payload), digest, rule)


def rejects_as_rows(rejects: list[Reject]) -> pa.RecordBatch:
    """The rows of a `quarantine` table."""
    columns = {
        name: pa.array([getattr(one, name) for one in rejects], QUARANTINE.field(name).type)
        for name in QUARANTINE.names
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=QUARANTINE)

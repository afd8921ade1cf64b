"""What features and labels are, apart from the rows that hold them."""

from msgspec import Struct

from boucle.clock import Nanos
from boucle.product.duration import seconds
from boucle.product.training import FeatureViewSpec, LabelSpec

__all__ = ["FeatureView", "Label"]


class FeatureView(Struct, frozen=True, kw_only=True):
    """Columns of a table that describe an entity from a moment on."""

    name: str
    table: str
    """`name` or `zone.name` of the lake, or a Parquet file."""
    entity: tuple[str, ...]
    columns: tuple[str, ...]
    time: str = "at"
    """When a row became true."""
    ttl: Nanos | None = None
    """Older rows count no more; None: any age does."""

    @classmethod
    def declared(cls, name: str, spec: FeatureViewSpec) -> "FeatureView":
        """As product.yaml says it."""
        ttl = int(seconds(spec.ttl) * 1e9) if spec.ttl else None
        return cls(
            name=name,
            table=spec.from_,
            entity=tuple(spec.entity),
            columns=tuple(spec.columns),
            time=spec.time,
            ttl=ttl,
        )


class Label(Struct, frozen=True, kw_only=True):
    """The answers to learn: whose, of which moment, and when they became known."""

    table: str
    column: str
    time: str = "at"
    known: str = ""
    """The column of the moment a label became known; empty: only `delay` says."""
    delay: Nanos = 0
    """How old a decision must be before its answer is taken as final."""

    @classmethod
    def declared(cls, spec: LabelSpec) -> "Label":
        """As product.yaml says it."""
        return cls(
            table=spec.from_,
            column=spec.column,
            time=spec.time,
            known=spec.known,
            delay=int(seconds(spec.delay) * 1e9),
        )

"""What the Loop document says of tables made from tables: transformations, their gates, and the lake's upkeep."""

from typing import Any, Literal

from msgspec import Struct, field, structs

__all__ = ["DriftSpec", "GateSpec", "RowsSpec", "TableUpkeepSpec", "TransformSpec", "UpkeepSpec"]


class RowsSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """How many rows a batch may have; `change` bounds the difference to the batch before, as a share of it."""

    least: int = 0
    most: int | None = None
    change: float | None = None


class DriftSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """How far a column's mean may move from the published version's, in its standard deviations."""

    column: str
    most: float


class GateSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One condition a staged batch must keep before consumers see it; exactly one of schema, sql, rows and drift."""

    name: str = ""
    schema: str = ""
    """Every row keeps the promise of this schema object of the DataContract."""
    sql: str = ""
    """A SELECT over `staged`, `previous` and the inputs; the rows it gives must not be there."""
    rows: RowsSpec | None = None
    drift: DriftSpec | None = None
    allow: int = 0
    """Rows that may fail all the same (schema and sql)."""
    severity: Literal["error", "warning"] = "error"
    """A warning is told and holds nothing back."""


class TransformSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the lake made from others by SQL or by a dbt project, published when its gates pass."""

    from_: list[str] = field(name="from")
    """The tables it reads, by name or `zone.name`."""
    zone: Literal["raw", "silver", "gold"]
    use: Literal["sql", "dbt"] = "sql"
    sql: str = ""
    """The file with the SELECT; `sql/NAME.sql` when empty. For dbt: the folder of the project."""
    model: str = ""
    """The model of a dbt project whose rows are published; the table's name when empty."""
    mode: Literal["full", "append", "merge"] = "full"
    """All rows anew; rows of what the inputs gained; or these merged by `key`."""
    key: list[str] = []
    """Columns that identify a row."""
    time: str = ""
    """The column of event time; empty: there is none."""
    partition: list[str] = []
    gates: list[GateSpec] = []
    when: Literal["new", "asked"] = "new"
    """By the running loop after its inputs gained a version, or only by `boucle refine`."""
    with_: dict[str, Any] = field(name="with", default_factory=dict)
    """Variables of a dbt project."""


class TableUpkeepSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Upkeep of one table, where it is not as that of the others."""

    every: str | None = None
    history: str | None = None
    rows: str | None = None
    late: Literal["apart", "merge"] | None = None


class UpkeepSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """How the lake's tables are kept quick and small beside the loop."""

    every: str = "15min"
    """How often files are joined and what is too old is dropped."""
    history: str = "7d"
    """How far back any version of a table can be read; files only older versions need are deleted."""
    rows: str = ""
    """How old a row may become, by event time; empty: for ever."""
    late: Literal["apart", "merge"] = "apart"
    """Whether late rows are brought into the table of their source, by its key."""
    tables: dict[str, TableUpkeepSpec] = {}
    """What is otherwise for single tables."""

    def of(self, table: str) -> "UpkeepSpec":
        """The rules of one table: its own, and these where it has none."""
        own = structs.asdict(self.tables.get(table, TableUpkeepSpec()))
        return structs.replace(self, **{name: value for name, value in own.items() if value is not None})

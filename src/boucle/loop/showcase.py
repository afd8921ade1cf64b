"""What a run holds of a product, for the catalogue: its tables' size, rows of sample, refused readings, objectives.

Everything is read from the run's folder; the loop may be running, stopped or gone.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from boucle.catalog.entry import Entry
from boucle.catalog.mask import masked
from boucle.errors import BoucleError
from boucle.lake.stored import DAY
from boucle.product.project import Settings

__all__ = ["Held", "Sample", "find_run", "held_by", "refused_by", "sample_of"]

_LONGEST = 60


class Held(Struct, frozen=True):
    """A table of a run's lake."""

    name: str
    zone: str
    rows: int
    version: int
    folder: Path


class Sample(Struct, frozen=True):
    """Some rows of a table, as text; None is null. `hidden`: the columns that are masked, and why."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    hidden: Mapping[str, str] = {}


class _Job(Struct, frozen=True):
    namespace: str = ""


class _Event(Struct, frozen=True):
    job: _Job = _Job()


def find_run(entry: Entry, root: Path, runs: Sequence[Path] = ()) -> Path | None:
    """The folder of a product's last run, None when there is none.

    Looked at: the run folders told, every folder in them, and `run.folder` of the product's boucle.toml from here, from
    the root and from the product. A run says itself, in its lineage, whose it is.
    """
    folder = root / Path(entry.file).parent
    places: list[Path] = []
    for one in runs:
        places += [one, *(sorted(path for path in one.iterdir() if path.is_dir()) if one.is_dir() else ())]
    try:
        named = Path(str(Settings(folder).get("run.folder").value))
        places += [Path.cwd() / named, root / named, folder / named]
    except BoucleError:
        pass
    found = [place for place in dict.fromkeys(places) if _owner(place) == entry.id]
    return max(found, key=lambda place: (place / "lineage").stat().st_mtime, default=None)


def _owner(run: Path) -> str:
    """The product whose run a folder holds, as the newest lineage event says; empty when there is none."""
    for path in sorted((run / "lineage").glob("????-??-??.ndjson"), reverse=True):
        with path.open("rb") as file:
            try:
                return msgspec.json.decode(file.readline(), type=_Event).job.namespace
            except msgspec.DecodeError:
                continue
    return ""


def held_by(run: Path) -> dict[str, Held]:
    """The tables of a run's lake by name; of several zones the most refined."""
    from boucle.lake.sql import find_tables

    tables = find_tables(run / "lake")
    return {
        one.name: Held(one.name, one.folder.parent.name, one.rows, one.version, one.folder) for one in tables
    }


def sample_of(
    run: Path, held: Held, hidden: Mapping[str, str], known: Sequence[str] = (), limit: int = 8
) -> Sample:
    """The newest rows of a table, with the `hidden` columns masked. BoucleError when it cannot be read.

    Where some are hidden, so is every column that nobody described (not `known`): it may be made of them.
    """
    from boucle.lake.sql import Sql

    lake = Sql(run / "lake")
    try:
        name = f'"{held.zone}"."{held.name}"'
        columns = lake.query(f"DESCRIBE {name}")["column_name"].to_pylist()
        order = ' ORDER BY "at" DESC' if "at" in columns else ""
        rows = lake.query(f"SELECT * FROM {name}{order} LIMIT {int(limit)}")  # noqa: S608 - names of the lake
    finally:
        lake.close()
    masked_too = (
        {one: "nobody described it" for one in columns if one not in known and one != DAY} if hidden else {}
    )
    hide = masked_too | {name: why for name, why in hidden.items() if name in columns}
    told = zip(*(_texts(rows[name].to_pylist(), name in hide) for name in columns), strict=True)
    return Sample(tuple(columns), tuple(told), {name: hide[name] for name in columns if name in hide})


def _texts(values: list[Any], hide: bool) -> Iterator[str | None]:
    for value in values:
        yield masked(value) if hide else _text(value)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, float):
        return f"{value:.6g}"
    text = f"[{len(value)} values]" if isinstance(value, list) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def refused_by(run: Path) -> list[tuple[str, str, int]]:
    """Readings in quarantine: (source, reason, how many), the most frequent first."""
    from boucle.lake.sql import Sql

    if "quarantine" not in held_by(run):
        return []
    lake = Sql(run / "lake")
    try:
        rows = lake.query(
            "SELECT source, reason, count(*) AS n FROM quarantine GROUP BY ALL ORDER BY n DESC LIMIT 20"
        )
    except BoucleError:
        return []
    finally:
        lake.close()
    return [(row["source"], row["reason"], int(row["n"])) for row in rows.to_pylist()]

"""Computes a transformation's rows from its inputs, each at one version, into files nobody reads yet."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.duck import DuckError, connection, literal, name
from boucle.refine.inputs import show, show_changes
from boucle.refine.transform import AFTER, CHANGED, JUDGED, PREVIOUS, REMOVED, Transform, bare

__all__ = ["Inputs", "Staged", "staged", "tables"]

_FILE = "rows.parquet"


class Inputs(Struct, frozen=True):
    """What is read: each input and its version now, and the one that was applied last (-1: none)."""

    tables: dict[str, LakeTable]
    versions: dict[str, int]
    applied: dict[str, int]
    output: LakeTable
    published: int
    """The version of the output that consumers see; -1: none yet."""
    others: dict[str, LakeTable] = {}
    """Tables that foreign keys of the output lead to, as far as the lake has them."""


class Staged(Struct, frozen=True):
    """A batch that was computed, and the database that sees it as `staged`."""

    duck: Any
    file: Path
    rows: int
    gained: dict[str, int]
    lost: dict[str, int]

    def tables(self) -> Iterator[pa.Table]:
        """Its rows, in pieces; times in UTC."""
        yield from tables(self.file)


def tables(file: Path) -> Iterator[pa.Table]:
    """The rows of a staged file, in pieces."""
    reader = pq.ParquetFile(file)
    for batch in reader.iter_batches(100_000):
        yield pa.Table.from_batches([batch])


@contextmanager
def staged(
    transform: Transform, inputs: Inputs, folder: Path, *, anew: bool, samples: Mapping[str, str]
) -> Iterator[Staged]:
    """The batch, while its database is open; `folder` is emptied before.

    `anew`: an incremental transformation sees all rows as gained. `samples`: conditions on the rows of inputs.
    B533 when the SQL cannot be run, B534 when rows that mode append added before were taken away from an input.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with connection(spill=folder / "spill") as duck:
        gained, lost = _show_all(duck, transform, inputs, anew, samples)
        if transform.spec.mode == "append" and any(lost.values()):
            told = ", ".join(f"{count} of {table}" for table, count in lost.items() if count)
            raise BoucleError(
                "B534",
                f'"{transform.name}" only appends, but rows it may have used are gone: {told}',
                why="an input was restored, backfilled or merged",
                fix=f"boucle refine {transform.name} --full, or mode: merge",
            )
        file = folder / _FILE
        try:
            if transform.spec.use == "dbt":
                from boucle.refine.dbt import build

                build(transform, duck, inputs, file)
            else:
                _confine(duck, inputs, folder)
                duck.execute(
                    f"COPY ({transform.text.strip().rstrip(';')}) TO {literal(str(file))} (FORMAT parquet)"
                )
            duck.execute(f"CREATE VIEW staged AS SELECT * FROM read_parquet({literal(str(file))})")
            if inputs.published >= 0:
                show(duck, inputs.output, inputs.published, PREVIOUS)
            else:
                duck.execute(f"CREATE VIEW {PREVIOUS} AS SELECT * FROM staged WHERE false")
            duck.execute(f"CREATE VIEW {AFTER} AS {_after(transform, anew=anew)}")
            rows = int(duck.execute("SELECT count(*) FROM staged").fetchall()[0][0])
        except DuckError as error:
            raise BoucleError(
                "B533",
                f'the SQL of "{transform.name}" cannot be run',
                where=str(transform.file),
                why=" ".join(str(error).split())[:400],
                fix="correct the SQL; `boucle sql` tries it out",
            ) from None
        yield Staged(duck, file, rows, gained, lost)


def _after(transform: Transform, *, anew: bool) -> str:
    """The table as it will be once the batch is published."""
    if anew or transform.spec.mode == "full":
        return "SELECT * FROM staged"
    kept = f"SELECT * FROM {PREVIOUS}"
    if transform.spec.mode == "merge":
        kept += f" ANTI JOIN staged USING ({', '.join(map(name, transform.spec.key))})"
    return f"({kept}) UNION ALL BY NAME SELECT * FROM staged"


def _confine(duck: Any, inputs: Inputs, folder: Path) -> None:
    """The SQL reads the lake and writes the staged file, nothing else."""
    read = (*inputs.tables.values(), *inputs.others.values(), inputs.output)
    places = {str(folder), *(table.place.uri for table in read)}
    duck.execute(f"SET allowed_directories = [{', '.join(map(literal, sorted(places)))}]")
    for setting in ("enable_external_access = false", "lock_configuration = true"):
        duck.execute(f"SET {setting}")


def _show_all(
    duck: Any, transform: Transform, inputs: Inputs, anew: bool, samples: Mapping[str, str]
) -> tuple[dict[str, int], dict[str, int]]:
    gained, lost = dict[str, int](), dict[str, int]()
    for schema in (CHANGED, REMOVED, JUDGED):
        duck.execute(f"CREATE SCHEMA {schema}")
    for other, table in inputs.others.items():
        show(duck, table, table.version, f"{JUDGED}.{name(other)}")
    for text, table in inputs.tables.items():
        one = name(bare(text))
        zone = name(table.zone)
        duck.execute(f"CREATE SCHEMA IF NOT EXISTS {zone}")
        show(duck, table, inputs.versions[text], f"{zone}.{one}", samples.get(text, ""))
        duck.execute(f"CREATE VIEW main.{one} AS SELECT * FROM {zone}.{one}")
        if transform.spec.mode == "full":
            continue
        if anew or inputs.applied[text] < 0:
            duck.execute(f"CREATE VIEW {CHANGED}.{one} AS SELECT * FROM {zone}.{one}")
            duck.execute(f"CREATE VIEW {REMOVED}.{one} AS SELECT * FROM {zone}.{one} WHERE false")
            continue
        counts = show_changes(
            duck, table, inputs.applied[text], inputs.versions[text], f"{CHANGED}.{one}", f"{REMOVED}.{one}"
        )
        gained[text], lost[text] = counts
    return gained, lost

"""How to read a table, ready to copy: SQL, Python, REST and psql."""

from pathlib import Path

from msgspec import Struct

from boucle.catalog.entry import Entry

__all__ = ["Snippet", "snippets"]


class Snippet(Struct, frozen=True):
    """Some lines for one way of reading; `before` is what must run for it, where something must."""

    way: str
    text: str
    before: str = ""


def snippets(entry: Entry, table: str, zone: str, run: Path | None) -> list[Snippet]:
    """The ways that lead to a table of a product's lake; without a run, `RUN` stands for its folder."""
    folder = str(run) if run is not None else "RUN"
    name = f'{zone}."{table}"' if not table.isidentifier() else f"{zone}.{table}" if zone else table
    query = f"SELECT * FROM {name} LIMIT 10"  # noqa: S608 - shown, not run
    quoted = query.replace('"', '\\"')
    serve = f"boucle serve {Path(entry.file).parent} --run {folder}"
    return [
        Snippet("SQL", f'boucle sql --folder {folder} "{quoted}"'),
        Snippet(
            "Python",
            f"from boucle.lake.sql import Sql\n\nrows = Sql({folder + '/lake'!r}).query({query!r})\n"
            "print(rows.to_pylist())",
        ),
        Snippet("psql", f"psql -h 127.0.0.1 -p 5433 -c '{query}'", f"{serve} --sql 127.0.0.1:5433"),
        Snippet(
            "REST",
            f"curl 'http://127.0.0.1:8090/products/{entry.id}/tables/{table}/rows?limit=10'",
            f"{serve} --http 127.0.0.1:8090",
        ),
    ]

"""PostgreSQL's `pg_catalog` and `information_schema` over the lake's tables, so that tools find their way.

DuckDB has some of these views, with its own numbers and without the contract's words, and keeps the names for
itself; ours stand in schemas of their own, and `boucle.outlet.dialect` leads the tools' queries there. They are
made out of six small tables, written anew when the lake's tables change; numbers (OIDs) come from names, so that
they stay the same from one query to the next.
"""

import re
import threading
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources

import pyarrow as pa

from boucle import __version__
from boucle.lake.sql import ZONES, Sql
from boucle.outlet.dialect import Names
from boucle.outlet.notes import ColumnNote, TableNote
from boucle.outlet.pgtype import TYPES, modifier, pg_type

__all__ = ["SERVER_VERSION", "Catalogue"]

SERVER_VERSION = "14.0"
"""What we tell to be: tools of every later version then ask only for what stands in catalogue.sql."""

_HOME, _INFORMATION = "boucle_pg_catalog", "boucle_information_schema"
_SAID = {
    "bool": "boolean",
    "char": '"char"',
    "int8": "bigint",
    "int2": "smallint",
    "int4": "integer",
    "float4": "real",
    "float8": "double precision",
    "bpchar": "character",
    "varchar": "character varying",
    "time": "time without time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
}


class Catalogue:
    """The catalogue of one lake. `settings` are those that SHOW and `pg_settings` tell."""

    def __init__(self, sql: Sql, about: Mapping[str, TableNote], settings: Mapping[str, str]) -> None:
        self._sql, self._about, self._settings = sql, about, dict(settings)
        self._lock = threading.Lock()
        self._known: list[tuple[str, str, str, str]] | None = None
        texts = [
            (resources.files("boucle.outlet") / name).read_text(encoding="utf-8")
            for name in ("absent.sql", "functions.sql", "catalogue.sql")
        ]
        version = f"PostgreSQL {SERVER_VERSION} (boucle {__version__}, DuckDB)"
        self._text = "\n".join(texts).replace("{version}", version)
        self._text = self._text.replace("{home}", _HOME).replace("{information}", _INFORMATION)
        self._text = self._text.replace("{{", "{").replace("}}", "}")
        made = re.findall(r"CREATE (?:OR REPLACE )?(\w+) (?:IF NOT EXISTS )?(\w+)\.(\w+)", self._text)
        self.names = Names(
            relations=frozenset(name for kind, home, name in made if kind != "MACRO" and home == _HOME),
            functions=frozenset(name for kind, home, name in made if kind == "MACRO" and home == _HOME),
            information=frozenset(name for _, home, name in made if home == _INFORMATION),
            home=_HOME,
            information_home=_INFORMATION,
        )
        self.visible: tuple[str, ...] = ("gold", "silver", "raw")

    def renew(self) -> None:
        """Make it say what there is now. Cheap when nothing changed."""
        with self._lock:
            columns = self._sql.renew()
            if columns == self._known:
                return
            self._sql.define(self._statements(), self._rows(columns))
            self._known = columns

    def _statements(self) -> str:
        tables = ("namespaces", "relations", "attributes", "keys", "types", "settings")
        lines = [f"CREATE SCHEMA IF NOT EXISTS {home};" for home in (_HOME, _INFORMATION)]
        lines += [f"CREATE OR REPLACE TABLE {_HOME}.{name} AS FROM boucle_{name};" for name in tables]
        visible = "[" + ", ".join(f"'{zone}'" for zone in self.visible) + "]"
        return "\n".join(lines) + "\n" + self._text.replace("{visible}", visible)

    def _rows(self, columns: Sequence[tuple[str, str, str, str]]) -> dict[str, pa.Table]:
        zones = sorted({*ZONES, *(zone for zone, *_ in columns)})
        tables: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for zone, table, column, kind in columns:
            tables.setdefault((zone, table), []).append((column, kind))
        relations, attributes, keys = [], [], []
        seen: set[str] = set()
        for zone, table in sorted(tables, key=lambda one: _rank(one[0], self.visible)):
            note = self._about.get(table, TableNote())
            oid = _oid(f"{zone}.{table}")
            named = [name for name, _ in tables[zone, table]]
            key = [named.index(name) + 1 for name in note.key if name in named]
            visible = zone in self.visible and table not in seen
            seen.add(table)
            relations.append((oid, zone, table, "r", note.description, len(named), bool(key), visible))
            for number, (name, kind) in enumerate(tables[zone, table], 1):
                told = note.columns.get(name, ColumnNote())
                words = f"{told.description} [{told.unit}]".strip() if told.unit else told.description
                attributes.append(
                    (oid, number, name, pg_type(kind).oid, modifier(kind), told.required, words)
                )
            if key:
                name = f"{table}_pkey"
                index = _oid(f"{zone}.{name}")
                keys.append((oid, index, _oid(f"{zone}.{name} constraint"), name, key))
                relations.append((index, zone, name, "i", "", len(key), False, visible))
                attributes += [
                    (index, at, named[one - 1], pg_type(tables[zone, table][one - 1][1]).oid, -1, False, "")
                    for at, one in enumerate(key, 1)
                ]
        named_zones = [
            (11, "pg_catalog"),
            (12, "information_schema"),
            *((_oid(zone), zone) for zone in zones),
        ]
        types = [
            (t.oid, t.name, _said(t.oid), t.size, t.array, t.category, t.element) for t in TYPES.values()
        ]
        return {
            "boucle_namespaces": _table("nid:o nname:s", named_zones),
            "boucle_relations": _table(
                "rid:o rzone:s rname:s rkind:s rtext:s rcount:i rkeyed:b rvisible:b rrows:f",
                [(*one, -1.0) for one in relations],
            ),
            "boucle_attributes": _table("arel:o anum:h aname:s atype:o amod:i amust:b atext:s", attributes),
            "boucle_keys": _table("krel:o kindex:o kcon:o kname:s kcolumns:l", keys),
            "boucle_types": _table("tid:o tname:s tsaid:s tlen:i tarray:o tcategory:s telement:o", types),
            "boucle_settings": _table("sname:s ssetting:s", list(self._settings.items())),
        }


_COLUMNS = {
    "o": pa.uint32(),
    "i": pa.int64(),
    "h": pa.int16(),
    "s": pa.string(),
    "b": pa.bool_(),
    "f": pa.float64(),
    "l": pa.list_(pa.int16()),
}


def _table(columns: str, rows: Sequence[tuple[object, ...]]) -> pa.Table:
    schema = pa.schema([(name, _COLUMNS[kind]) for name, kind in (one.split(":") for one in columns.split())])
    parts = [list(part) for part in zip(*rows, strict=True)] or [[] for _ in schema]
    return pa.table(
        [pa.array(part, field.type) for part, field in zip(parts, schema, strict=True)], schema=schema
    )


def _oid(name: str) -> int:
    """A number for a name, above those PostgreSQL keeps for itself; the same in every process."""
    return 16_384 + zlib.crc32(name.encode()) % 2_000_000_000


def _rank(zone: str, visible: Sequence[str]) -> tuple[int, str]:
    return (visible.index(zone) if zone in visible else len(visible), zone)


def _said(oid: int) -> str:
    one = TYPES[oid]
    if one.element:
        return f"{_SAID.get(TYPES[one.element].name, TYPES[one.element].name)}[]"
    return _SAID.get(one.name, one.name)

"""Time travel in SQL: `FROM readings AT (VERSION => 17)`, or `AT (TIMESTAMP => '2026-11-21 10:00:00')`, UTC.

The clause is SQL's own way (DuckDB, Snowflake, Delta in Spark write it alike); it is replaced by the table's files at
that version before DuckDB sees the text. What stands in quotes or comments is left alone.
"""

import re
from collections.abc import Callable, Sequence

from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.history import version_of

__all__ = ["as_it_was"]

_WORD = r'(?:"(?:[^"]|"")+"|[^\W\d]\w*)'
_PATTERN = re.compile(
    rf"""(?P<left>'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/)
    |(?P<table>(?:{_WORD}\s*\.\s*)?{_WORD})\s+at\s*\(\s*(?P<kind>version|timestamp)\s*=>\s*
     (?:timestamp(?:tz)?\s*)?(?P<when>\d+|'[^']*')\s*\)
    |"(?:[^"]|"")*\"""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


def as_it_was(text: str, tables: Sequence[LakeTable], at: Callable[[LakeTable, int], str]) -> str:
    """The statement with each `table AT (…)` as `at` says it; tables are in order, the most refined last.

    B505, B523 and B524 tell of a version or moment that is none; an unknown table is left for DuckDB to name.
    """

    def replaced(found: re.Match[str]) -> str:
        if found["table"] is None:
            return found[0]
        words = [word.strip('"').replace('""', '"').lower() for word in re.findall(_WORD, found["table"])]
        zone = words[-2] if len(words) == 2 else ""
        meant = [one for one in tables if one.name.lower() == words[-1] and zone in {"", one.zone}]
        if not meant:
            return found["table"]
        when = found["when"]
        if found["kind"].lower() == "timestamp" and not when.startswith("'"):
            raise BoucleError("B524", f"{when} is no moment", fix="write TIMESTAMP => '2026-11-21 10:00:00'")
        relation = at(meant[-1], version_of(meant[-1], when.strip("'")))
        return f"(SELECT * EXCLUDE (_file, _row) FROM {relation})"  # noqa: S608 - our own relation

    return _PATTERN.sub(replaced, text)

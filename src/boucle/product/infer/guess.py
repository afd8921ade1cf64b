"""Guesses out of a profile: each with its reason, written into the contract as a guess until somebody accepts it."""

import datetime as dt
import decimal
import re
import tempfile
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import duckdb
from msgspec import Struct

from boucle.errors import BoucleError
from boucle.product.columns import property_of
from boucle.product.infer.delimited import quarantined
from boucle.product.infer.files import open_data
from boucle.product.infer.opened import Broken
from boucle.product.infer.personal import personal
from boucle.product.infer.profile import Profile, Profiled, profile

__all__ = ["KINDS", "Guess", "Inferred", "infer"]

Of: TypeAlias = Literal["type", "required", "key", "unique", "range", "length", "values", "time", "personal"]
KINDS: tuple[Of, ...] = ("type", "required", "key", "unique", "range", "length", "values", "time", "personal")

_TIMES = re.compile(
    r"(?:.*_)?(?:at|time|timestamp|ts|datetime|date|when|moment|created|updated|horodatage)(?:_.*)?",
    re.IGNORECASE,
)
_IDS = re.compile(r"(?:.*_)?(?:id|key|code|no|number|uuid|nr|num|ref)", re.IGNORECASE)


class Guess(Struct, frozen=True):
    """Something the data suggest; only its owner knows whether it is meant."""

    column: str
    of: Of
    value: Any
    why: str


class Inferred(Struct, frozen=True):
    """What data suggest of a contract."""

    name: str
    rows: int
    guesses: tuple[Guess, ...]
    notes: tuple[str, ...]
    properties: tuple[dict[str, Any], ...]
    """ODCS properties with names and types; no promise is in them."""
    broken: tuple[Broken, ...] = ()
    broken_lines: int = 0
    address: str = ""

    def schema_object(self, accepted: Collection[str] = ()) -> dict[str, Any]:
        """The ODCS schema object: accepted kinds of guesses as promises, the others as custom properties."""
        found = []
        for prop in self.properties:
            written = dict(prop)
            open_guesses = []
            for one in self.guesses:
                if one.column != prop["name"]:
                    continue
                if one.of in accepted:
                    _promise(written, one)
                else:
                    named = f"guessed{one.of.capitalize()}"
                    open_guesses.append({"property": named, "value": one.value, "description": one.why})
            if open_guesses:
                written["customProperties"] = open_guesses
            found.append(written)
        return {"name": self.name, "physicalType": "table", "properties": found}


def _promise(prop: dict[str, Any], one: Guess) -> None:
    options = prop.setdefault("logicalTypeOptions", {})
    match one.of:
        case "required" | "unique":
            prop[one.of] = True
        case "key":
            prop |= {"primaryKey": True, "primaryKeyPosition": one.value, "required": True}
        case "range":
            options |= {"minimum": one.value[0], "maximum": one.value[1]}
        case "length":
            options |= {"minLength": one.value[0], "maxLength": one.value[1]}
        case "values":
            prop["quality"] = [
                {"metric": "invalidValues", "arguments": {"validValues": one.value}, "mustBe": 0}
            ]
        case "personal":
            prop["classification"] = "restricted"
            prop["tags"] = [f"pii:{one.value}"]
    if not options:
        del prop["logicalTypeOptions"]


def infer(address: str, *, quarantine: Path | None = None, **settings: str | None) -> Inferred:
    """Look at data and say what a contract of them could be; broken lines go to `quarantine`.

    Raises B249 when nothing can be read, B250 when a spreadsheet holds no plain table, B254 when
    there is no row.
    """
    with tempfile.TemporaryDirectory(prefix="boucle-infer-") as folder:
        opened = open_data(address, Path(folder), **settings)
        try:
            found = profile(opened)
            if opened.after is not None:
                opened.after()
        except duckdb.Error as error:
            why = str(error).partition("\n")[0][:200]
            fix = "give a complete file; of a line it names, repair that line"
            raise BoucleError(
                "B249", f"{opened.address} cannot be read to its end", why=why, fix=fix
            ) from None
        finally:
            opened.connection.close()
    if found.rows == 0:
        why = f"{opened.broken_lines} lines are broken" if opened.broken_lines else ""
        raise BoucleError("B254", f"{address} holds no row", why=why, fix="give data with at least one row")
    if opened.broken and quarantine is not None:
        quarantined(opened, quarantine)
    guesses = [one for column in found.columns for one in _of_column(column, opened.required)]
    guesses += _keys(found, opened.keys)
    guesses += _time(found)
    order = {column.column.name: place for place, column in enumerate(found.columns)}
    return Inferred(
        name=_slug(opened.name),
        rows=found.rows,
        guesses=tuple(sorted(guesses, key=lambda one: (order[one.column], KINDS.index(one.of)))),
        notes=tuple(opened.notes),
        properties=tuple(property_of(column.column) for column in found.columns),
        broken=tuple(opened.broken),
        broken_lines=opened.broken_lines,
        address=opened.address,
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "table"


def _of_column(one: Profile, required: Collection[str]) -> Iterator[Guess]:
    name = one.column.name
    why = one.remark or f"{one.filled - one.misfits} of {one.filled} values fit"
    if one.misfits:
        why += f"; {one.misfits} do not, e.g. {one.misfit!r}"
    prop = property_of(one.column)
    told = " ".join(str(prop[key]) for key in ("logicalType", "physicalType") if key in prop)
    yield Guess(name, "type", told or "any", why)
    if name in required:
        yield Guess(name, "required", True, "the database says so")
    elif one.filled == one.rows and not one.misfits:
        yield Guess(name, "required", True, f"no value is missing in {one.rows} rows")
    if one.exactly:
        yield Guess(name, "unique", True, f"no value stands twice in {one.rows} rows")
    if one.low is not None and not one.values:
        yield Guess(name, "range", [_told(one.low), _told(one.high)], "smallest and largest value")
    if one.longest and not one.values and one.column.kind.format != "uuid":
        yield Guess(name, "length", [one.shortest, one.longest], "shortest and longest text")
    if one.values:
        why = f"only {len(one.values)} different values in {one.filled}"
        yield Guess(name, "values", [_told(value) for value in one.values], why)
    if (found := personal(name, one.sample[:2000])) is not None:
        yield Guess(name, "personal", found.kind, found.why)


def _told(value: Any) -> Any:
    """A value as YAML says it."""
    if isinstance(value, dt.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    return str(value) if isinstance(value, uuid.UUID) else value


def _keys(found: Profiled, declared: tuple[str, ...]) -> Iterator[Guess]:
    if declared:
        for place, name in enumerate(declared, 1):
            yield Guess(name, "key", place, "the database says so")
        return
    if not found.keys:
        return
    # A column that is called like a key is more likely meant as one than a measurement without repetition.
    best = min(found.keys, key=lambda names: (len(names), not all(_IDS.fullmatch(name) for name in names)))
    for place, name in enumerate(best, 1):
        together = (
            "" if len(best) == 1 else f" together with {', '.join(other for other in best if other != name)}"
        )
        yield Guess(name, "key", place, f"no two of {found.rows} rows share it{together}")


def _time(found: Profiled) -> Iterator[Guess]:
    moments = [one.column.name for one in found.columns if one.column.kind.family == "timestamp"]
    if moments:
        named = [name for name in moments if _TIMES.fullmatch(name)]
        best = (named or moments)[0]
        others = [name for name in moments if name != best]
        why = (
            "the only timestamp" if not others else f"of {len(moments)} timestamps the likeliest by its name"
        )
        yield Guess(best, "time", True, why)

"""Which schema languages there are, and the way from a contract to each and back."""

import importlib
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from boucle.errors import BoucleError
from boucle.product.columns import columns, schema_object
from boucle.product.formats.losses import Losses
from boucle.product.lines import Document

__all__ = ["FORMATS", "Format", "Told", "export", "import_text"]


class Format(Struct, frozen=True):
    """A schema language: the module that speaks it, and the endings of its files."""

    module: str
    endings: tuple[str, ...]
    dialect: str = ""
    reads: bool = True


FORMATS: dict[str, Format] = {
    "arrow": Format("arrow", (".arrow", ".arrows", ".feather", ".ipc")),
    "avro": Format("avro", (".avsc",)),
    "duckdb": Format("sql", (".sql", ".ddl"), "duckdb"),
    "jsonschema": Format("jsonschema", (".schema.json", ".json")),
    "postgresql": Format("sql", (), "postgresql"),
    "protobuf": Format("protobuf", (".proto",)),
    "pydantic": Format("pydantic", (".py",), reads=False),
}
"""By the name that `boucle contract` knows them by; `duckdb` and `postgresql` are two dialects of SQL."""


class Told(Struct, frozen=True):
    """One schema object in another language, and what that language could not say."""

    name: str
    content: str | bytes
    losses: tuple[str, ...]


def export(contract: Document, to: str, only: Sequence[str] = ()) -> list[Told]:
    """The contract's schema objects in another schema language; `only` some, by name."""
    spoken = _format(to)
    items = contract.value.get("schema") or []
    known = [str(item["name"]) for item in items]
    for name in only:
        if name not in known:
            fix = f"one of: {', '.join(known) or '(the contract has none)'}"
            raise BoucleError("B248", f"there is no schema object {name!r}", where=contract.file, fix=fix)
    module = importlib.import_module(f"boucle.product.formats.{spoken.module}")
    extra = (spoken.dialect,) if spoken.dialect else ()
    found = []
    for item in items:
        if only and item["name"] not in only:
            continue
        losses = Losses()
        content = module.write(str(item["name"]), columns(item), losses, *extra)
        _beside(item, losses)
        found.append(Told(str(item["name"]), content, tuple(losses.found)))
    return found


def _beside(item: dict[str, Any], losses: Losses) -> None:
    """What stands in the contract and in no schema language."""
    for prop in item.get("properties") or ():
        name = str(prop.get("name"))
        for said in ("classification", "relationships", "encryptedName"):
            if prop.get(said):
                losses.note(name, f"{said} is not said")
        rules = [
            rule for rule in prop.get("quality") or () if not (rule.get("arguments") or {}).get("validValues")
        ]
        if rules:
            losses.note(name, f"{len(rules)} quality rule{'s are' if len(rules) > 1 else ' is'} not said")
        for one in prop.get("customProperties") or ():
            if str(one.get("property")).startswith("guessed"):
                continue  # by `boucle init`, and no promise until somebody accepts it
            losses.note(name, f"{one.get('property')} {one.get('value')!r} is not said")
    if item.get("quality"):
        losses.note("", f"{len(item['quality'])} quality rules of the table are not said")
    if item.get("relationships"):
        losses.note("", "relationships of the table are not said")


def import_text(content: bytes, of: str) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """ODCS schema objects out of another schema language, and what could not be carried over."""
    spoken = _format(of)
    if not spoken.reads:
        raise BoucleError(
            "B248", f"{of} is written, not read", fix="import one of: " + ", ".join(_readable())
        )
    module = importlib.import_module(f"boucle.product.formats.{spoken.module}")
    losses = Losses()
    extra = (spoken.dialect,) if spoken.dialect else ()
    given: Any = content
    if spoken.module != "arrow":
        try:
            given = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            why = f"byte {error.start} is 0x{content[error.start]:02X}"
            raise BoucleError("B247", "the file is not UTF-8 text", why=why, fix="save it as UTF-8") from None
    found = module.read(given, losses, *extra)
    return [schema_object(name, one) for name, one in found], tuple(losses.found)


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise BoucleError("B248", f"there is no format {name!r}", fix=f"one of: {', '.join(FORMATS)}")
    return FORMATS[name]


def _readable() -> list[str]:
    return [name for name, spoken in FORMATS.items() if spoken.reads]

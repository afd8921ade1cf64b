"""What a schema language cannot say, told column by column."""

import re
from collections.abc import Collection, Iterable
from typing import Any

from msgspec import Struct, structs

from boucle.product.columns import Column

__all__ = ["Losses", "facets", "identifier", "with_facets"]


class Losses(Struct):
    """Collects what was lost on the way; `found` is what is shown."""

    found: list[str] = []

    def note(self, where: str, what: str) -> None:
        """One thing that is not carried over."""
        text = f"{where}: {what}" if where else what
        if text not in self.found:
            self.found.append(text)

    def unsaid(self, columns: Iterable[Column], carried: Collection[str], where: str = "") -> None:
        """Everything these columns say beside name and type that is not `carried`."""
        for one in columns:
            path = f"{where}{one.name}"
            for name, value in facets(one).items():
                if name not in carried:
                    self.note(path, f"{name} {value!r} is not said")
            inner = one.kind.fields or ((one.kind.item,) if one.kind.item else ())
            self.unsaid(inner, carried, f"{path}.")


def facets(one: Column) -> dict[str, Any]:
    """What a column says beside its name, its type and whether it is required."""
    told: dict[str, Any] = {}
    told |= {"unique": True} if one.unique else {}
    told |= {"primaryKey": one.key} if one.key else {}
    told |= {"description": one.description} if one.description else {}
    told |= {"enum": list(one.values)} if one.values else {}
    told |= {"examples": list(one.examples)} if one.examples else {}
    return told | dict(one.options)


def with_facets(one: Column, told: Any) -> Column:
    """A column with what `facets` said of it; what is of another type is left out."""
    if not isinstance(told, dict):
        return one
    options = dict(one.options)
    changes: dict[str, Any] = {}
    for name, value in told.items():
        match name, value:
            case "unique", bool():
                changes["unique"] = value
            case "primaryKey", int():
                changes["key"] = value
            case "description", str():
                changes["description"] = value
            case (("enum" | "examples"), list()):
                changes["values" if name == "enum" else "examples"] = tuple(value)
            case (("unique" | "primaryKey" | "description" | "enum" | "examples"), _):
                pass
            case _:
                options[str(name)] = value
    return structs.replace(one, options=options, **changes)


def identifier(name: str, taken: Collection[str] = ()) -> str:
    """A name of letters, digits and underscores that is not taken yet."""
    wanted = re.sub(r"[^A-Za-z0-9_]", "_", name)
    if not re.match(r"[A-Za-z_]", wanted):
        wanted = f"_{wanted}"
    found, number = wanted, 2
    while found in taken:
        found, number = f"{wanted}_{number}", number + 1
    return found

"""Which columns are about people: by the class the contract gives them, or by a tag."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["is_personal", "personal_columns"]

_HARMLESS = {"", "none", "no", "false", "public", "open", "internal", "non-pii", "not-pii", "0"}
_PERSONAL = {"pii", "personal", "gdpr", "rgpd", "phi", "pci"}


def is_personal(classification: str, tags: Sequence[str] = ()) -> bool:
    """Whether a PII class, or a tag, asks for masking; a class nobody here knows does.

    >>> is_personal("public"), is_personal("restricted"), is_personal("", ["PII"])
    (False, True, True)
    """
    return classification.lower() not in _HARMLESS or any(tag.lower() in _PERSONAL for tag in tags)


def personal_columns(contract: Mapping[str, Any]) -> Iterator[str]:
    """The names of a contract's personal columns: `classification`, custom property `pii`, or tag."""
    for schema in contract.get("schema") or ():
        for one in schema.get("properties") or ():
            custom = {
                str(told.get("property")): told.get("value") for told in one.get("customProperties") or ()
            }
            pii = custom.get("pii", custom.get("piiClass", ""))
            told = str(one.get("classification") or ("pii" if pii is True else pii) or "")
            if is_personal("pii" if told == "true" else told, [str(tag) for tag in one.get("tags") or ()]):
                yield str(one["name"])

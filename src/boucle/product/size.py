"""Sizes as people write them: `64MB`, `20GB`, `512MiB`."""

import re

from boucle.errors import BoucleError

__all__ = ["size"]

_UNITS = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_PATTERN = re.compile(rf"\s*(\d+(?:\.\d+)?)\s*({'|'.join(_UNITS)})\s*")


def size(text: str | int) -> int:
    """The size in bytes; a bare number already is. B215 says what can be written.

    >>> size("64MB"), size("1.5KiB"), size(3)
    (64000000, 1536, 3)
    """
    if isinstance(text, int):
        return text
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise BoucleError(
            "B215", f"{text!r} is not a size", fix="write a number and a unit: 500kB, 64MB, 20GB, 512MiB"
        )
    return int(float(match[1]) * _UNITS[match[2]])

"""What somebody may have meant who wrote a name that is not known."""

import difflib
from collections.abc import Collection

__all__ = ["near"]


def near(name: str, known: Collection[str]) -> str:
    """`did you mean "…"?`, or the names that are known, in their order."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f'did you mean "{found[0]}"?' if found else f"known: {', '.join(known) or 'none yet'}"

"""A changelog entry in Markdown, for those who read the data and those who make them."""

import re
from collections.abc import Sequence
from pathlib import Path

from boucle.product.compare.change import Change, Verdict

__all__ = ["entry", "write_entry"]

_TITLE = "# Changes\n"


def entry(verdicts: Sequence[Verdict], day: str) -> str:
    """One section: the version, then what breaks for whom, then the rest; empty when nothing changed."""
    changed = [verdict for verdict in verdicts if verdict.changes]
    if not changed:
        return ""
    names = dict.fromkeys(verdict.new or verdict.needed or "unversioned" for verdict in changed)
    lines = [f"## {' / '.join(names)} – {day}", ""]
    for verdict in changed:
        lines += [
            f"{verdict.document.capitalize()} `{verdict.id}`, {verdict.old or 'new'} → {verdict.new or 'gone'}:",
            "",
        ]
        for title, chosen in _parts(verdict.changes):
            lines += [f"### {title}", "", *(_line(change) for change in chosen), ""] if chosen else []
    return "\n".join(lines).rstrip() + "\n"


def _parts(changes: Sequence[Change]) -> list[tuple[str, list[Change]]]:
    both = {"consumers", "producers"}
    return [
        ("Breaks for consumers and producers", [one for one in changes if set(one.breaks) == both]),
        ("Breaks for consumers", [one for one in changes if set(one.breaks) == {"consumers"}]),
        ("Breaks for producers", [one for one in changes if set(one.breaks) == {"producers"}]),
        ("Changed", [one for one in changes if not one.breaks and one.least != "patch"]),
        ("Words", [one for one in changes if not one.breaks and one.least == "patch"]),
    ]


def _line(change: Change) -> str:
    text = f"- `{change.path}`: {change.what}" if change.path else f"- {change.what}"
    return f"{text} ({change.why})" if change.why else text


def write_entry(file: Path, text: str) -> None:
    """Put an entry on top of a changelog; an entry of the same version is replaced."""
    old = file.read_text(encoding="utf-8") if file.exists() else _TITLE
    heading = text.partition(" – ")[0]
    kept = re.sub(rf"^{re.escape(heading)} – .*?(?=^## |\Z)", "", old, flags=re.MULTILINE | re.DOTALL)
    first = re.search(r"^## ", kept, re.MULTILINE)
    at = first.start() if first else len(kept)
    before, after = kept[:at].rstrip("\n"), kept[at:]
    written = (before + "\n\n" if before else "") + text + ("\n" + after if after else "")
    file.write_text(written, encoding="utf-8")

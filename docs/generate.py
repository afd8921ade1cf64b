# ruff: noqa: INP001 - a program beside its pages, not a package
"""Write the pages of docs/reference that are read out of the source: errors.md and addresses.md.

`make docs` runs it; a test fails when a page is not what it would write.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "boucle"
PAGES = ROOT / "docs" / "reference"
CODE = re.compile(r"B\d{3}")

FAMILIES = {
    "B1": "The environment",
    "B2": "Declarations and addresses",
    "B3": "The bus and the wire",
    "B4": "Contracts and quality",
    "B5": "The lake and SQL",
    "B6": "Models and drift",
    "B7": "Acting on machines",
    "B8": "The page and the command line",
}


class Said(NamedTuple):
    """One place where an error is raised, in the words the user reads."""

    what: str
    why: str
    fix: str
    file: str


def errors_page() -> str:
    """The reference of every error code, in the order of the codes."""
    found: dict[str, set[Said]] = defaultdict(set)
    for path in sorted(SOURCE.rglob("*.py")):
        for code, said in raised_in(path):
            found[code].add(said)
    lines = [
        "# Error codes",
        "",
        "Every error reads `CODE where: what: why. Fix: …`; `⟨…⟩` stands for what is filled in.",
        "This page is written from the source by `make docs`.",
    ]
    for family, title in FAMILIES.items():
        codes = sorted(code for code in found if code.startswith(family))
        if not codes:
            continue
        lines += ["", f"## {family}xx {title}"]
        for code in codes:
            lines += ["", f"### {code}", ""]
            lines += [_line(said) for said in sorted(found[code]) if said.what or len(found[code]) == 1]
    return "\n".join(lines) + "\n"


def _line(said: Said) -> str:
    text = said.what or "several problems, each with its own sentence"
    text += f": {said.why}" if said.why else ""
    text += f". **Fix:** {said.fix}" if said.fix else ""
    return f"- {text} (`{said.file}`)"


def raised_in(path: Path) -> Iterator[tuple[str, Said]]:
    """Each error code of a source file with what is said beside it."""
    file = path.relative_to(SOURCE.parent).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defaults = dict(_defaults(tree))
    used: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        named = {word.arg: word.value for word in node.keywords if word.arg}
        codes = [value for value in (*node.args, *named.values()) if _code(value)]
        default = defaults.get(node.func.id) if isinstance(node.func, ast.Name) else None
        if not codes and default is None:
            continue
        used |= {id(value) for value in codes}
        after = node.args[node.args.index(codes[0]) + 1 :] if codes and codes[0] in node.args else node.args
        texts = [text for value in after if (text := _text(value))]
        what = _text(named.get("what")) or (texts[0] if texts else "")
        said = Said(what, _text(named.get("why")), _text(named.get("fix")), file)
        for code in [_code(value) for value in codes] or [default or ""]:
            yield code, said
    for node in ast.walk(tree):  # codes in a table, and defaults nobody relied on
        if _code(node) and id(node) not in used:
            yield _code(node), Said("", "", "", file)


def _defaults(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Function → the error code its callers get when they name none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for value in (*node.args.defaults, *node.args.kw_defaults):
                if _code(value):
                    yield node.name, _code(value)


def _code(node: ast.AST | None) -> str:
    named = isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value)
    return named.group() if named else ""


def _text(node: ast.AST | None) -> str:
    """A string of the source as the user reads it; empty for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or _hole(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.IfExp):
        return _text(node.body) or _text(node.orelse)
    return ""


def _hole(part: ast.AST) -> str:
    value = part.value if isinstance(part, ast.FormattedValue) else part
    if isinstance(value, ast.Constant):
        return ""
    name = value.attr if isinstance(value, ast.Attribute) else value.id if isinstance(value, ast.Name) else ""
    return f"⟨{name.strip('_') or '…'}⟩"


def addresses_page() -> str:
    """The reference of every address scheme: which class serves it, in that class's first sentence."""
    lines = [
        "# Addresses",
        "",
        "An address is `scheme://host:port/path?option=value`. Strangers add schemes by entry point",
        "(`boucle.sources`, `boucle.sinks`, `boucle.actuators`, `boucle.tables`).",
        "This page is written from the source by `make docs`.",
    ]
    for port, schemes in _schemes().items():
        lines += ["", f"## {port}s", "", "| scheme | served by | which |", "|---|---|---|"]
        for scheme, target in sorted(schemes.items()):
            lines.append(f"| `{scheme}` | `{target}` | {_summary(target)} |")
    return "\n".join(lines) + "\n"


def _schemes() -> dict[str, dict[str, str]]:
    tree = ast.parse((SOURCE / "address.py").read_text(encoding="utf-8"))
    tables = [
        node
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "SCHEMES"
    ]
    for node in tables:
        found: dict[str, dict[str, str]] = ast.literal_eval(node.value or ast.Dict([], []))
        return found
    raise SystemExit("src/boucle/address.py has no SCHEMES table")


def _summary(target: str) -> str:
    module, _, name = target.partition(":")
    path = ROOT / "src" / Path(*module.split(".")).with_suffix(".py")
    if not path.exists():
        return ""
    classes = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    texts = [ast.get_docstring(node) or "" for node in classes if node.name == name]
    return " ".join(texts[0].partition("\n\n")[0].split()).replace("|", "\\|") if texts else ""


PAGE_MAKERS = {"errors.md": errors_page, "addresses.md": addresses_page}


def main() -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, make in PAGE_MAKERS.items():
        (PAGES / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()

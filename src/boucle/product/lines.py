"""YAML read with the line of every value, so that a problem can say where it is."""

import re
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from msgspec import Struct

from boucle.errors import Problem

__all__ = ["Document", "Path_", "read_documents"]

Path_: TypeAlias = tuple[str | int, ...]


class Document(Struct, frozen=True):
    """One YAML document: its value, and the line each path of it starts on."""

    file: str
    value: Any
    lines: dict[Path_, int]

    def line(self, path: Path_) -> int:
        """The line of the nearest place that exists on the way to `path`."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 1


class _Loader(yaml.SafeLoader):
    """Safe; timestamps stay text (the standards' schemas expect text), and `on`, `no` are words."""


# YAML 1.2's core schema: only true and false are booleans, so that a rule may say `on: verdicts`.
_TAKEN_OUT = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool"}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _TAKEN_OUT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read_documents(file: Path, shown: str | None = None) -> tuple[list[Document], list[Problem]]:
    """Every YAML document of a file, and every problem of its syntax (duplicate keys included)."""
    name = shown or file.name
    problems: list[Problem] = []
    documents: list[Document] = []
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        problem = Problem(
            "B201",
            f"there is no file {name}",
            name,
            1,
            why=f"looked in {file.parent.absolute()}",
            fix="name the product's folder; examples/press is one",
        )
        return [], [problem]
    except UnicodeDecodeError as error:
        why = f"byte {error.start} is not valid: {error.reason}"
        return [], [Problem("B202", "the file is not UTF-8 text", name, 1, why, "save it as UTF-8")]
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None, "check_node said there is one"
            lines: dict[Path_, int] = {}
            _walk(node, (), lines, problems, name)
            documents.append(Document(name, loader.construct_document(node), lines))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        why = " ".join(str(getattr(error, "problem", None) or error).split())
        line = mark.line + 1 if mark else 1
        problems.append(
            Problem("B202", "this is not valid YAML", name, line, why, "check the indentation and quotes")
        )
    finally:
        loader.dispose()
    return documents, problems


def _walk(node: yaml.Node, path: Path_, lines: dict[Path_, int], problems: list[Problem], name: str) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                why = "YAML would silently keep only the last one"
                problems.append(
                    Problem("B202", f'"{key.value}" is given twice', name, line, why, "remove one")
                )
            seen.add(key.value)
            lines[(*path, key.value)] = line
            _walk(value, (*path, key.value), lines, problems, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), lines, problems, name)

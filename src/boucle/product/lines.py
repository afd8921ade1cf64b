"""YAML read with the line of every value, so that a problem can say where it is.

libyaml tells what stands in the file, event by event; the value is built here, without recursion and
within limits, so that no file can exhaust the reader: not by nesting, not by anchors that repeat
anchors. What a plain word means is said in `scalars`. Keys are always text.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from msgspec import Struct
from yaml.cyaml import CParser  # type: ignore[attr-defined]  # libyaml's, not in the stubs

from boucle.errors import Problem
from boucle.product.scalars import canonical, plain_value

__all__ = ["Document", "Path_", "read_documents", "read_text"]

Path_: TypeAlias = tuple[str | int, ...]

_DEEPEST = 100
_LARGEST = 1_000_000
"""Values in one file, those repeated by an anchor counted each time."""


class Document(Struct, frozen=True):
    """One YAML document: its value, and the line each path of it starts on."""

    file: str
    value: Any
    lines: dict[Path_, int]
    spelled: dict[Path_, str] = {}
    """Numbers and nothings that were written otherwise than they would be written back: `1.10`, `~`."""

    def line(self, path: Path_) -> int:
        """The line of the nearest place that exists on the way to `path`."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 1


def read_documents(file: Path, shown: str | None = None) -> tuple[list[Document], list[Problem]]:
    """Every YAML document of a file, and every problem of its syntax (duplicate keys included)."""
    name = shown or file.name
    try:
        content = file.read_bytes()
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
    except OSError as error:
        why = error.strerror or str(error)
        return [], [Problem("B201", f"{name} cannot be read", name, 1, why, "name a YAML file or its folder")]
    return read_text(content, name)


def read_text(content: bytes, name: str) -> tuple[list[Document], list[Problem]]:
    """Every YAML document of a file's bytes, and every problem of its syntax."""
    try:
        text = _decoded(content)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        odd = content[error.start]
        why = f"byte {error.start} is 0x{odd:02X}, which no UTF-8 text has there"
        if odd >= 0xA0:
            why += f"; in Latin-1 it would be {chr(odd)!r}"
        return [], [Problem("B202", "the file is not UTF-8 text", name, line, why, "save it as UTF-8")]
    if (odd_at := _UNPRINTABLE.search(text)) is not None:
        line = text.count("\n", 0, odd_at.start()) + 1
        why = f"it holds the control character U+{ord(odd_at[0]):04X}"
        return [], [Problem("B202", "the file is not text", name, line, why, "give a YAML file")]
    builder = _Builder(name)
    try:
        builder.read(text)
    except yaml.YAMLError as error:
        builder.problems.append(_syntax_problem(error, text, name))
    except _Unreadable as error:
        builder.problems.append(error.problem)
    return builder.documents, builder.problems


_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def _decoded(content: bytes) -> str:
    wide = content[:2] in {b"\xff\xfe", b"\xfe\xff"}
    return content.decode("utf-16" if wide else "utf-8-sig")


def _syntax_problem(error: yaml.YAMLError, text: str, name: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    why = " ".join(str(getattr(error, "problem", None) or error).split())
    line = mark.line + 1 if mark else 1
    fix = "check the indentation and quotes"
    written = text.split("\n")[line - 1] if line <= text.count("\n") + 1 else ""
    if "\t" in written[: len(written) - len(written.lstrip())]:
        why, fix = "YAML allows no tab in the indentation", "indent with spaces"
    return Problem("B202", "this is not valid YAML", name, line, why, fix)


class _Unreadable(Exception):
    """The rest of the file is not worth reading; never leaves this file."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.what)


class _Anchored(Struct):
    """What an anchor names: its value, and how many values and levels it adds wherever it is repeated."""

    value: Any
    size: int
    depth: int


class _Open(Struct):
    """A mapping or a list whose end has not been read."""

    value: Any
    path: Path_
    anchor: str | None
    begun: int
    """How many values had been read before it."""
    deepest: int = 0
    """How many levels stand below it."""
    key: str | None = None
    """Of a mapping, the key that waits for its value."""
    merging: bool = False
    """Whether that key is a plain `<<`."""
    merged: list[dict[str, Any]] | None = None
    """Of a mapping, what `<<` brings in."""


class _Builder:
    """Builds documents from libyaml's events."""

    def __init__(self, name: str) -> None:
        self.documents: list[Document] = []
        self.problems: list[Problem] = []
        self._name = name
        self._root: Any = None
        self._lines: dict[Path_, int] = {}
        self._spelled: dict[Path_, str] = {}
        self._anchors: dict[str, _Anchored | None] = {}
        self._open: list[_Open] = []
        self._values = 0

    def read(self, text: str) -> None:
        for event in _events(text):
            match event:
                case yaml.ScalarEvent():
                    self._scalar(event)
                case yaml.MappingStartEvent():
                    self._begin({}, event)
                case yaml.SequenceStartEvent():
                    self._begin([], event)
                case yaml.CollectionEndEvent():
                    self._end()
                case yaml.AliasEvent():
                    self._alias(event)
                case yaml.DocumentStartEvent():
                    self._lines, self._spelled, self._anchors, self._root = {}, {}, {}, None
                case yaml.DocumentEndEvent():
                    self.documents.append(Document(self._name, self._root, self._lines, self._spelled))

    def _problem(self, what: str, event: Any, why: str = "", fix: str = "") -> None:
        self.problems.append(Problem("B202", what, self._name, event.start_mark.line + 1, why, fix))

    def _begin(self, value: Any, event: Any) -> None:
        if self._awaits_key():
            raise _Unreadable(self._no_key(event))
        self._count(event)
        if len(self._open) >= _DEEPEST:
            raise _Unreadable(self._limit("is nested too deeply", event, f"more than {_DEEPEST} levels"))
        if event.tag not in {None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}:
            self._tag(event)
        path = self._place()
        self._lines.setdefault(path, event.start_mark.line + 1)
        if event.anchor:
            self._anchors[event.anchor] = None
        self._open.append(_Open(value, path, event.anchor, self._values))

    def _end(self) -> None:
        done = self._open.pop()
        for source in done.merged or ():
            for key, value in source.items():
                done.value.setdefault(key, value)
        if done.anchor:
            self._anchors[done.anchor] = _Anchored(
                done.value, self._values - done.begun + 1, done.deepest + 1
            )
        self._put(done.value, done.deepest + 1)

    def _scalar(self, event: Any) -> None:
        self._count(event)
        if self._awaits_key():
            self._key(event.value, event)
            self._open[-1].merging = event.value == "<<" and event.implicit[0]
            return
        path = self._place()
        self._lines.setdefault(path, event.start_mark.line + 1)
        value: Any = event.value
        if event.implicit[0] and event.tag is None:
            value = plain_value(event.value)
            if not isinstance(value, str) and canonical(value) != event.value:
                self._spelled[path] = event.value
        elif event.tag not in {None, "!", "tag:yaml.org,2002:str"}:
            value = self._tagged(event)
        if event.anchor:
            self._anchors[event.anchor] = _Anchored(value, 1, 0)
        self._put(value, 0)

    def _tagged(self, event: Any) -> Any:
        value = plain_value(event.value)
        named = event.tag.removeprefix("tag:yaml.org,2002:")
        kinds: dict[str, tuple[type, ...]] = {
            "int": (int,),
            "float": (int, float),
            "bool": (bool,),
            "null": (type(None),),
        }
        if not isinstance(value, kinds.get(named, ())) or (named == "int" and isinstance(value, bool)):
            self._tag(event)
            return event.value
        return float(value) if named == "float" and value is not None else value

    def _tag(self, event: Any) -> None:
        shown = event.tag.replace("tag:yaml.org,2002:", "!!")
        self._problem(f"the tag {shown} does not fit here", event, fix="remove the tag")

    def _alias(self, event: Any) -> None:
        known = self._anchors.get(event.anchor, False)
        if not known:
            why = "it would hold itself" if known is None else "nothing above is called so"
            raise _Unreadable(
                Problem(
                    "B202",
                    f"*{event.anchor} stands for nothing",
                    self._name,
                    event.start_mark.line + 1,
                    why,
                    f"write &{event.anchor} before a value further up",
                )
            )
        assert isinstance(known, _Anchored)
        if self._awaits_key():
            if isinstance(known.value, dict | list):
                raise _Unreadable(self._no_key(event))
            self._key(str(known.value), event)
            return
        self._values += known.size - 1
        self._count(event)
        if len(self._open) + known.depth > _DEEPEST:
            raise _Unreadable(self._limit("is nested too deeply", event, f"more than {_DEEPEST} levels"))
        self._lines.setdefault(self._place(), event.start_mark.line + 1)
        self._put(known.value, known.depth)

    def _no_key(self, event: Any) -> Problem:
        line = event.start_mark.line + 1
        why = "the standards' documents are JSON, where keys are text"
        return Problem(
            "B202", "a list or a mapping cannot be a key", self._name, line, why, "use a word as the key"
        )

    def _count(self, event: Any) -> None:
        self._values += 1
        if self._values > _LARGEST:
            why = f"more than {_LARGEST} values, anchors counted wherever they are repeated"
            raise _Unreadable(self._limit("is too large", event, why))

    def _limit(self, what: str, event: Any, why: str) -> Problem:
        fix = "split it, or write out what the anchors repeat"
        return Problem("B240", f"{self._name} {what}", self._name, event.start_mark.line + 1, why, fix)

    def _awaits_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict) and self._open[-1].key is None

    def _place(self) -> Path_:
        """The path of the value that comes next."""
        if not self._open:
            return ()
        inside = self._open[-1]
        return (*inside.path, len(inside.value) if isinstance(inside.value, list) else inside.key or "")

    def _key(self, key: str, event: Any) -> None:
        inside = self._open[-1]
        if key in inside.value:
            why = "YAML would silently keep only the last one"
            self._problem(f'"{key}" is given twice', event, why, "remove one")
        inside.key = key
        self._lines[(*inside.path, key)] = event.start_mark.line + 1

    def _put(self, value: Any, levels: int) -> None:
        if not self._open:
            self._root = value
            return
        inside = self._open[-1]
        inside.deepest = max(inside.deepest, levels)
        if isinstance(inside.value, list):
            inside.value.append(value)
            return
        assert inside.key is not None
        sources = value if isinstance(value, list) else [value]
        if inside.merging and all(isinstance(source, dict) for source in sources):
            inside.merged = [*(inside.merged or ()), *sources]
        else:
            inside.value[inside.key] = value
        inside.key, inside.merging = None, False


def _events(text: str) -> Iterator[Any]:
    parser = CParser(text)
    try:
        while parser.check_event():
            yield parser.get_event()
    finally:
        parser.dispose()

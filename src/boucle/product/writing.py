"""Writes documents as YAML that reads back as what they were, here and in readers of YAML 1.1.

Text that another reader could take for a number, a date or a truth is quoted; numbers keep the spelling
they were read with. Comments are not kept: they are no part of the value.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from yaml.cyaml import CEmitter  # type: ignore[attr-defined]  # libyaml's, not in the stubs
from yaml.resolver import Resolver
from yaml.serializer import Serializer

from boucle.product.lines import Document, Path_
from boucle.product.scalars import canonical, plain_value

__all__ = ["write_documents", "write_value"]

_WIDTH = 110
_TAG = "tag:yaml.org,2002:"
_NUMBER_TO_SOME = re.compile(
    r"[-+]?[0-9][0-9_,:]*\.?[0-9_:]*(?:[eE][-+]?[0-9]+)?|[-+]?0[xXoObB][0-9a-fA-F_]*"
)
"""`007`, `1e3`, `12:30`, `1_000`, `0b1`: numbers in some version of YAML; `1.10.0` and `2nd` in none."""
_UNSAFE_IN_BLOCKS = ("\t", " \n", "\r", "\x85", "\u2028", "\u2029", "\ufeff")


def write_documents(documents: Sequence[Document]) -> str:
    """The documents as one YAML text, separated by `---`."""
    return "---\n".join(write_value(document.value, document.spelled) for document in documents)


def write_value(value: Any, spelled: Mapping[Path_, str] | None = None) -> str:
    """A value of mappings, lists, text, numbers, truths and nothings as YAML.

    >>> print(write_value({"version": "1.10", "answer": "no", "count": 3}), end="")
    version: '1.10'
    answer: 'no'
    count: 3
    """
    text: str = yaml.serialize(
        _node(value, (), spelled or {}),
        Dumper=_Dumper,
        allow_unicode=True,
        width=_WIDTH,
        explicit_end=False,
    )
    return text.removesuffix("...\n")


class _Dumper(CEmitter, Serializer, Resolver):
    """libyaml's emitter; which words need quotes is decided here, for both versions of YAML."""

    def __init__(self, stream: Any, **settings: Any) -> None:
        wanted = {key: settings[key] for key in ("allow_unicode", "width")}
        CEmitter.__init__(self, stream, **wanted)
        Serializer.__init__(self, explicit_end=settings["explicit_end"])
        Resolver.__init__(self)


_RESOLVER: Any = Resolver()


def _node(value: Any, path: Path_, spelled: Mapping[Path_, str]) -> yaml.Node:
    if isinstance(value, Mapping):
        pairs = [(_text(str(key)), _node(inner, (*path, key), spelled)) for key, inner in value.items()]
        return yaml.MappingNode(f"{_TAG}map", pairs, flow_style=not pairs)
    if isinstance(value, list | tuple):
        items = [_node(inner, (*path, index), spelled) for index, inner in enumerate(value)]
        return yaml.SequenceNode(f"{_TAG}seq", items, flow_style=not items)
    if isinstance(value, str):
        return _text(value)
    written = spelled.get(path)
    if written is None or canonical(plain_value(written)) != canonical(value):
        # Nobody spelled it, or the value was changed since it was read.
        written = canonical(value)
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, written, (True, False))
    return yaml.ScalarNode(tag, written)


def _text(value: str) -> yaml.ScalarNode:
    words = _RESOLVER.resolve(yaml.ScalarNode, value, (True, False)) == f"{_TAG}str"
    plain = words and isinstance(plain_value(value), str) and not _NUMBER_TO_SOME.fullmatch(value)
    style = None if plain else "'"
    if plain and "\n" in value and not any(odd in value for odd in _UNSAFE_IN_BLOCKS):
        style = "|"
    return yaml.ScalarNode(f"{_TAG}str", value, style=style)

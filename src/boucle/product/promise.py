"""What one file promises: a DataProduct, a DataContract, or both; a Loop beside them is not looked at.

`product.yaml` is such a file, and so is a contract that stands alone (`orders.odcs.yaml`).
"""

import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from boucle.errors import BoucleError, DeclarationError, Problem
from boucle.product.check import kind_of, shape_problems
from boucle.product.consistency import consistency_problems
from boucle.product.lines import Document, read_documents, read_text

__all__ = ["Promise", "contract_of", "promise_files", "read_promise", "read_promise_text"]

_ENDINGS = (".odcs.yaml", ".odcs.yml", ".odps.yaml", ".odps.yml")
_NOT_OURS = {"__pycache__", "node_modules"}


class Promise(Struct, frozen=True):
    """The documents of one file that fit the official schemas."""

    file: str
    product: Document | None = None
    contract: Document | None = None

    @property
    def id(self) -> str:
        """The id of the product, or of the contract that stands alone."""
        document = self.product or self.contract
        return str(document.value.get("id", "")) if document is not None else ""


def read_promise(file: Path, shown: str | None = None) -> tuple[Promise, list[Problem]]:
    """What a file promises, and every problem of it; a folder stands for its product.yaml."""
    documents, problems = read_documents(file / "product.yaml" if file.is_dir() else file, shown)
    return _promise(documents, problems, shown or file.name)


def read_promise_text(content: bytes, name: str) -> tuple[Promise, list[Problem]]:
    """The same of a file's bytes."""
    documents, problems = read_text(content, name)
    return _promise(documents, problems, name)


def contract_of(file: Path) -> Document:
    """The contract of a file or a folder; DeclarationError carries every problem."""
    promise, problems = read_promise(file, str(file))
    if problems:
        raise DeclarationError(problems)
    if promise.contract is None:
        raise BoucleError(
            "B242",
            "there is no DataContract",
            where=str(file),
            fix="add a document with `kind: DataContract`",
        )
    return promise.contract


def promise_files(folder: Path) -> Iterator[Path]:
    """Every product.yaml, `*.odcs.yaml` and `*.odps.yaml` below a folder; nothing below a product's folder."""
    for here, inner, files in os.walk(folder):
        found = [name for name in files if name == "product.yaml" or name.endswith(_ENDINGS)]
        yield from (Path(here) / name for name in sorted(found))
        kept = [name for name in inner if not name.startswith(".") and name not in _NOT_OURS]
        inner[:] = [] if "product.yaml" in found else sorted(kept)


def _promise(documents: list[Document], problems: list[Problem], name: str) -> tuple[Promise, list[Problem]]:
    found: dict[str, Document] = {}
    for document in documents:
        kind = kind_of(document)
        line = document.line(("kind",))
        if kind not in {"DataProduct", "DataContract", "Loop"}:
            fix = "one of DataProduct, DataContract, Loop"
            problems.append(Problem("B209", f"unknown kind {kind!r}", document.file, line, fix=fix))
        elif kind in found:
            fix = "one of each in a file"
            problems.append(Problem("B209", f"a second {kind}", document.file, line, fix=fix))
        else:
            found[kind] = document
            if kind != "Loop":
                problems += shape_problems(document, kind)
    promise = Promise(name, found.get("DataProduct"), found.get("DataContract"))
    if not problems and promise.contract is not None:
        problems += consistency_problems(promise.contract)
    if not problems and promise.product is None and promise.contract is None:
        fix = "give a file with `kind: DataProduct` or `kind: DataContract`"
        problems.append(Problem("B242", "the file promises nothing", name, 1, fix=fix))
    return promise, problems

"""`boucle contract`: a contract told in another schema language, and read from one."""

import argparse
import json
import sys
from pathlib import Path

from boucle.errors import BoucleError

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle contract`."""
    words = parser.add_subparsers(dest="word", metavar="export|import|show", required=True)
    shown = argparse.RawDescriptionHelpFormatter
    export = words.add_parser(
        "export", help="a contract's tables in another schema language", formatter_class=shown
    )
    export.add_argument("contract", type=Path, help="a contract's file, product.yaml, or a product's folder")
    export.add_argument("--to", required=True, metavar="FORMAT", help=_formats())
    export.add_argument("--table", action="append", default=[], help="only this one; may be repeated")
    export.add_argument("--output", type=Path, metavar="FILE", help="into this file, not onto the screen")
    read = words.add_parser(
        "import", help="ODCS schema objects from another schema language", formatter_class=shown
    )
    read.add_argument("file", type=Path, help="a file in that language")
    read.add_argument("--of", metavar="FORMAT", help=f"{_formats()} (default: by the file's ending)")
    read.add_argument("--id", default="", help="of the contract (default: the file's name)")
    read.add_argument("--output", type=Path, metavar="FILE", help="into this file, not onto the screen")
    show = words.add_parser("show", help="a contract as it is read, written back", formatter_class=shown)
    show.add_argument("contract", type=Path, help="a contract's file, product.yaml, or a product's folder")
    show.set_defaults(output=None)
    for one in (parser, export, read, show):
        one.add_argument(
            "--json",
            action="store_true",
            default=argparse.SUPPRESS,
            help="one JSON object: {tables: [{name, content, losses}]}",
        )
    parser.epilog = (
        "examples:\n  boucle contract export examples/press --to avro\n"
        "  boucle contract export orders.odcs.yaml --to postgresql --table orders --output orders.sql\n"
        "  boucle contract import orders.proto --output orders.odcs.yaml\n"
        "  boucle contract show examples/press"
    )


def _formats() -> str:
    return "arrow, avro, duckdb, jsonschema, postgresql, protobuf or pydantic"


def run(options: argparse.Namespace) -> int:
    """Print or write what was asked for; what got lost goes to standard error."""
    options.json = getattr(options, "json", False)
    if options.word == "export":
        return _export(options)
    return _import(options) if options.word == "import" else _show(options)


def _export(options: argparse.Namespace) -> int:
    from boucle.product.formats import export
    from boucle.product.promise import contract_of

    found = export(contract_of(options.contract), options.to, options.table)
    if options.json:
        told = [
            {"name": one.name, "content": _text(one.content), "losses": list(one.losses)} for one in found
        ]
        print(json.dumps({"tables": told}, ensure_ascii=False))
        return 0
    for one in found:
        for loss in one.losses:
            print(f"▲ {one.name}: {loss}", file=sys.stderr)
    if options.output is None:
        print("\n".join(_text(one.content) for one in found), end="")
        return 0
    several = len(found) > 1
    for one in found:
        file = options.output.with_stem(f"{options.output.stem}-{one.name}") if several else options.output
        file.write_bytes(one.content if isinstance(one.content, bytes) else one.content.encode())
        print(file)
    return 0


def _text(content: str | bytes) -> str:
    """An Arrow schema is a message of bytes: on a screen it is told in words."""
    if isinstance(content, str):
        return content
    import pyarrow as pa

    schema = pa.ipc.read_schema(pa.py_buffer(content))
    return f"{schema.to_string(show_schema_metadata=False)}\n"


def _import(options: argparse.Namespace) -> int:
    from boucle.product.formats import FORMATS, import_text
    from boucle.product.starting import slug
    from boucle.product.writing import write_value

    name = options.file.name.lower()
    of = options.of or next(
        (one for one, spec in FORMATS.items() if spec.reads and spec.endings and name.endswith(spec.endings)),
        None,
    )
    if of is None:
        raise BoucleError(
            "B248", f"{options.file.name}: nobody can tell its language", fix=f"--of {_formats()}"
        )
    try:
        content = options.file.read_bytes()
    except OSError as error:
        raise BoucleError(
            "B247", f"{options.file} cannot be read", why=error.strerror or "", fix="name a file"
        ) from None
    schema, losses = import_text(content, of)
    contract = {
        "apiVersion": "v3.1.0", "kind": "DataContract", "id": options.id or slug(options.file.name.partition(".")[0]),
        "version": "0.1.0", "status": "draft", "schema": schema,
    }  # fmt: skip
    text = write_value(contract)
    if options.json:
        print(json.dumps({"contract": contract, "losses": list(losses)}, ensure_ascii=False))
        return 0
    for loss in losses:
        print(f"▲ {loss}", file=sys.stderr)
    if options.output is None:
        print(text, end="")
    else:
        options.output.write_text(text, encoding="utf-8")
        print(options.output)
    return 0


def _show(options: argparse.Namespace) -> int:
    from boucle.product.promise import contract_of
    from boucle.product.writing import write_documents

    contract = contract_of(options.contract)
    print(
        json.dumps(contract.value, ensure_ascii=False) if options.json else write_documents([contract]),
        end="",
    )
    return 0

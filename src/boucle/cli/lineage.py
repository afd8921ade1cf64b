"""`boucle lineage`: what breaks without a column, where a number comes from, and the events for other tools."""

import argparse
import json
from pathlib import Path
from typing import Any

from boucle.errors import BoucleError

__all__ = ["arguments", "open_index", "run"]

_NAMED = 5
"""Products that are named; the others are counted."""
_HEADS = {"table": "tables", "model": "models", "rule": "rules", "event": "events", "command": "commands"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle lineage`."""
    questions = parser.add_subparsers(dest="question", metavar="QUESTION", required=True)
    for name, summary in (
        ("impact", "what breaks if this column goes: tables, models, rules, commands, other products"),
        ("origin", "where this number comes from: back to the sensor's topic, each step in words"),
    ):
        one = questions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        one.add_argument("what", metavar="TABLE.COLUMN", help="or PRODUCT/TABLE.COLUMN, or a table alone")
        root_arguments(one)
        one.add_argument("--ways", action="store_true", help="the whole way to each end")
        one.add_argument("--picture", type=Path, metavar="FILE", help="draw it into an SVG file")
        one.add_argument("--json", action="store_true", help="one JSON object: {asked, reached: [...]}")
    export = questions.add_parser(
        "export", help="send a run's OpenLineage events to a receiver, or into a file"
    )
    export.add_argument("run", nargs="?", default="run", type=Path, help="the run's folder (default: run)")
    export.add_argument(
        "--to", required=True, metavar="ADDRESS", help="https://…, http://host:5000 or file:PATH"
    )
    export.add_argument("--key", default="", help="sent as a bearer token (better: BOUCLE_LINEAGE_KEY)")
    export.add_argument("--json", action="store_true", help="one JSON object: {sent, refused, waiting}")
    parser.epilog = (
        "examples:\n  boucle lineage impact features.x_rms --root examples/press\n"
        "  boucle lineage origin maintenance_summary.rul_h --ways\n"
        "  boucle lineage impact press-line/features.speed --picture speed.svg\n"
        "  boucle lineage export run/press --to http://127.0.0.1:5000 --json"
    )


def root_arguments(parser: argparse.ArgumentParser) -> None:
    """Which products are meant."""
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="the folder above your products (default: here)",
    )
    parser.add_argument(
        "--index",
        type=Path,
        metavar="FILE",
        help="where the index lies (default: ROOT/.boucle/catalogue.sqlite)",
    )


def open_index(options: argparse.Namespace) -> Any:
    """The index of the root, renewed."""
    from boucle.catalog.index import Index
    from boucle.cli.screen import Screen
    from boucle.loop.columns import trace_product

    index, screen = Index(options.root, options.index), Screen("en")
    index.refresh(
        trace_product,
        lambda done, of: screen.progress(f"reading products: {done} of {of}") if of > 5 else None,
    )
    screen.done()
    if not index.counts()["products"]:
        raise BoucleError(
            "B567",
            f"there is no product.yaml below {options.root.absolute()}",
            fix="name the folder above your products with --root",
        )
    return index


def run(options: argparse.Namespace) -> int:
    """Answer, draw or send."""
    if options.question == "export":
        return _export(options)
    from boucle.catalog.drawing import draw
    from boucle.catalog.questions import ask, find_node

    index = open_index(options)
    answer = ask(index, find_node(index, options.what), options.question)
    if options.picture:
        options.picture.write_text(draw(answer), encoding="utf-8")
        print(options.picture)
    elif options.json:
        print(json.dumps(_plain(answer), ensure_ascii=False))
    else:
        print(
            "\n".join(
                _impact(answer, options.ways)
                if options.question == "impact"
                else _origin(answer, options.ways)
            )
        )
    index.close()
    return 0


def _plain(answer: Any) -> dict[str, Any]:
    reached = [
        {
            "kind": one.node.kind,
            "product": one.node.product,
            "name": one.node.name,
            "column": one.node.column,
            "via": str(one.via),
            "how": one.how,
            "says": one.says,
            "step": one.step,
            "far": one.far,
            "decides": one.decides,
            "sure": one.sure,
        }
        for one in answer.reached
    ]
    asked = answer.asked
    return {
        "question": answer.direction,
        "asked": {"kind": asked.kind, "product": asked.product, "name": asked.name, "column": asked.column},
        "products": answer.products(),
        "reached": reached,
    }


def _impact(answer: Any, ways: bool) -> list[str]:
    groups = {kind: answer.things(kind) for kind in _HEADS}
    counted = [
        f"{len(found)} {_HEADS[kind] if len(found) != 1 else kind}" for kind, found in groups.items() if found
    ]
    if not counted:
        return [f"{answer.asked}: nothing that the catalogue knows uses it"]
    others = answer.products()
    lines = [
        f"without {answer.asked}, {', '.join(counted)} change"
        + (f", in {', '.join(others[:_NAMED])}" if others else "")
        + (f" and {len(others) - _NAMED} more" if len(others) > _NAMED else "")
    ]
    for kind, found in groups.items():
        if not found:
            continue
        lines.append(f"{_HEADS[kind]}:")
        for thing, reached in found:
            columns = [one.node.column for one in reached if one.node.column]
            some = (
                f".{{{', '.join(columns[:6])}{f', … {len(columns) - 6} more' if len(columns) > 6 else ''}}}"
                if columns
                else ""
            )
            unsure = "" if any(one.sure for one in reached) else "  (perhaps: a step on the way does not say)"
            lines.append(f"  {thing}{some}{unsure}")
            if ways or kind in ("rule", "command"):
                lines += _way(answer, reached[0], "      ")
    return lines


def _way(answer: Any, reached: Any, indent: str) -> list[str]:
    steps = answer.way(reached.node)
    return [
        f"{indent}→ {one.node}  {one.how.lower().replace('_', ' ')}{f': {one.says}' if one.says else ''}"
        for one in steps
    ]


def _origin(answer: Any, ways: bool) -> list[str]:
    if not answer.reached:
        return [f"{answer.asked}: the catalogue knows nothing that it is made from"]
    ends = {one.node: one for one in answer.ends() if not one.decides}
    decides = [one for one in answer.reached if one.decides and one.node.column]
    lines = [f"{answer.asked} comes from"]
    for node, end in sorted(ends.items(), key=lambda item: (item[0].kind != "topic", str(item[0]))):
        unsure = "" if end.sure else "  (perhaps: a step on the way does not say)"
        lines.append(f"  {node}{unsure}")
        lines += [
            f"      → {one.via}  {one.how.lower()}{f': {one.says}' if one.says else ''}"
            for one in reversed(answer.way(node))
        ]
    if decides:
        names = sorted({str(one.node) for one in decides})
        shown = names if ways else names[:8]
        more = f" and {len(names) - len(shown)} more (--ways)" if len(names) > len(shown) else ""
        lines.append(f"which of its rows there are, and when, is decided by {', '.join(shown)}{more}")
    return lines


def _export(options: argparse.Namespace) -> int:
    import os

    from boucle.catalog.export import Exporter
    from boucle.errors import Unavailable

    folder = options.run / "lineage"
    if not folder.is_dir():
        fix = "give the folder of a run; `boucle run` and `boucle demo` say it"
        raise BoucleError("B568", f"there is no lineage in {options.run}", fix=fix)
    exporter = Exporter(folder, options.to, options.key or os.environ.get("BOUCLE_LINEAGE_KEY", ""))
    failure = None
    try:
        while exporter.step():
            pass
    except Unavailable as error:
        failure = error
    waiting = exporter.waiting()
    if options.json:
        told = {"sent": exporter.state.sent, "refused": exporter.state.refused, "waiting": waiting}
        print(json.dumps(told | ({"failure": str(failure)} if failure else {})))
        return 1 if failure else 0
    print(
        f"{exporter.state.sent} sent, {exporter.state.refused} refused, {waiting} waiting  → {exporter.name}"
    )
    if failure is not None:
        raise failure
    return 0

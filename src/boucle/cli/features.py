"""`boucle features`: what a view holds is put into the store it is served from, and shown as it is served."""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boucle.cli.answer import print_rows
from boucle.errors import BoucleError

if TYPE_CHECKING:
    from boucle.features.online import FeatureReader

__all__ = ["arguments", "run"]

_ROWS = 10_000


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle features`."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("view", help="its name under features: of product.yaml")
    shared.add_argument("--product", type=Path, default=Path(), help="the product's folder (default: here)")
    shared.add_argument("--env", help="an environment of boucle.toml")
    shared.add_argument(
        "--depth", type=int, default=4, help="rows kept of each key, as at the step (default: 4)"
    )
    shared.add_argument("--json", action="store_true", help="one JSON value on standard output")
    todo = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    says = "write the view's table, the newest rows of each key, into the store"
    fill = todo.add_parser("fill", help=says, description=says, parents=[shared])
    fill.add_argument("--folder", type=Path, help="the run whose lake is read (default: `run.folder`)")
    says = "what is served of keys, now or as of a moment"
    get = todo.add_parser("get", help=says, description=says, parents=[shared])
    get.add_argument(
        "--key", action="append", required=True, metavar="VALUE[,VALUE]", help="values of the view's entity"
    )
    get.add_argument("--at", metavar="TIME", help="as of this moment (default: now)")
    parser.epilog = (
        "examples:\n  boucle features fill card_features --product examples/fraud\n"
        "  boucle features get card_features --key card-17 --at 2026-11-22T08:00:00Z --json"
    )


def run(options: argparse.Namespace) -> int:
    """Fill the store, or show what it serves; B698 where it is the memory of a running loop."""
    from boucle.features.online import FeatureReader
    from boucle.features.store import MemoryStore, open_store
    from boucle.features.view import FeatureView
    from boucle.product.project import load_project

    project = load_project(options.product, options.env)
    if options.view not in project.loop.features:
        known = ", ".join(project.loop.features) or "none"
        raise BoucleError(
            "B696", f"there is no view {options.view!r}", why=f"views: {known}", fix="name one of them"
        )
    store = open_store(str(project.settings.get("features.store").value), 5.0)
    if isinstance(store, MemoryStore):
        raise BoucleError(
            "B698",
            "the features are in the memory of the running loop",
            where="boucle.toml [features] store",
            fix='name a store that others can reach: store = "redis://127.0.0.1:6379/0"',
        )
    view = FeatureView.declared(options.view, project.loop.features[options.view])
    reader = FeatureReader(view, store, depth=options.depth)
    try:
        return _fill(reader, options) if options.what == "fill" else _get(reader, options)
    finally:
        store.close()


def _fill(reader: "FeatureReader", options: argparse.Namespace) -> int:
    from boucle.cli.screen import Screen
    from boucle.cli.train import source_of

    view = reader.view
    rows, version = source_of(options).read(view.table, [*view.entity, view.time, *view.columns])
    screen, keys, done = Screen("en"), set[bytes](), 0
    for batch in rows.to_batches(_ROWS):
        records = reader.records(batch)
        reader.store.put(records, reader.size, reader.depth, reader.expire)
        keys |= records.keys()
        done += len(batch)
        screen.progress(f"{done} of {len(rows)} rows")
    screen.done()
    if options.json:
        print(json.dumps({"view": view.name, "rows": done, "keys": len(keys), "version": version.version}))
    else:
        print(f"{view.name}: the newest of {done} rows of {len(keys)} keys are served")
    return 0


def _get(reader: "FeatureReader", options: argparse.Namespace) -> int:
    import numpy as np

    from boucle.features.online import STATES
    from boucle.lake.history import moment_of

    at = int(moment_of(options.at).timestamp() * 1e9) if options.at else time.time_ns()
    rows: list[dict[str, Any]] = []
    for text in options.key:
        tried = _keys(text)
        values, null, states = reader.read(tried, np.full(len(tried), at, np.int64))
        # A number may be one, or the text of one: whichever is known.
        best = min(range(len(tried)), key=lambda place: (states[place] == STATES.index("missing"), place))
        features = {
            name: None if null[best, place] else float(values[best, place])
            for place, name in enumerate(reader.view.columns)
        }
        rows.append({"key": text, "state": STATES[states[best]], **features})
    print_rows(rows, as_json=options.json)
    return 0


def _keys(text: str) -> list[bytes]:
    """The keys that a text may mean: its parts as text, and as whole numbers where they all are."""
    import msgspec

    parts = text.split(",")
    found = [msgspec.msgpack.encode(tuple(parts))]
    if all(one.lstrip("-").isdecimal() and len(one) < 19 for one in parts):
        found.append(msgspec.msgpack.encode(tuple(map(int, parts))))
    return found

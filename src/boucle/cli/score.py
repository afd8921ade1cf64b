"""`boucle score`: a table of the lake through a model into another table."""

import argparse
import json
import sys
from pathlib import Path

from boucle.cli.lake import lake_of, lake_options

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle score`."""
    parser.add_argument("table", metavar="TABLE", help="what to score: `readings`, or `silver.readings`")
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="models:NAME@champion, models:NAME/3, or a model folder",
    )
    parser.add_argument("--to", required=True, metavar="TABLE", help="where the scored rows go (zone: gold)")
    parser.add_argument(
        "--product",
        type=Path,
        default=Path(),
        help="the folder whose registry `models:` means (default: here)",
    )
    parser.add_argument(
        "--full", action="store_true", help="all rows anew, in the place of those scored before"
    )
    lake_options(parser)
    parser.epilog = (
        "examples:\n"
        "  boucle score silver.accepted --model models:fraud@champion --to gold.scored --folder run/fraud\n"
        "  boucle score vibration_events --model examples/press/model --to wear --full --json"
    )


def run(options: argparse.Namespace) -> int:
    """0 when every row that was new is scored."""
    import msgspec

    from boucle.models.registry import SCHEME, open_model, registry_of
    from boucle.serve.table import score_table

    lake = lake_of(options)
    source = lake.find(options.table)
    zone, _, name = options.to.rpartition(".")
    target = lake.table(zone or "gold", name, time=source.time, partition_by=source.partition_by)
    if options.model.startswith(SCHEME):
        registry = registry_of(options.product)
        found = registry.resolve(options.model)
        model, version = registry.load(str(found)), str(found.number)
    else:
        model = open_model(options.model)
        version = model.manifest.sha256[:12]
    shown = sys.stderr.isatty() and not options.json

    def progress(done: int) -> None:
        if shown:
            print(f"\r{done:,} rows".replace(",", " "), end="", file=sys.stderr, flush=True)

    start = "\r" if shown else ""
    done = score_table(source, target, model, version=version, full=options.full, progress=progress)
    if options.json:
        print(json.dumps(msgspec.to_builtins(done)))
        return 0
    print(
        f"{start}{done.rows} rows of {options.table} (to version {done.source_version}) scored by "
        f"{model.manifest.name} {version} into {target.zone}.{name}"
        + (f"; {done.unscored} of them lack a number and have no score" if done.unscored else "")
    )
    return 0

"""`boucle train`: from feature views at a moment to a registered version."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boucle.cli.screen import Screen
from boucle.errors import BoucleError

__all__ = ["arguments", "run", "source_of"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle train`."""
    parser.add_argument(
        "model", nargs="?", help="its name in `models:` of product.yaml (default: the only one)"
    )
    parser.add_argument("--product", type=Path, default=Path(), help="the product's folder (default: here)")
    parser.add_argument("--env", help="an environment of boucle.toml")
    parser.add_argument("--folder", type=Path, help="the run whose lake is read (default: `run.folder`)")
    parser.add_argument("--cut", metavar="TIME", help="look at nothing after this moment (default: now)")
    parser.add_argument("--note", default="", help="kept with the version")
    parser.add_argument("--dry-run", action="store_true", help="measure, but register nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.epilog = (
        "examples:\n  boucle train fraud --product examples/fraud\n"
        "  boucle train --cut 2026-11-01T00:00:00Z --dry-run\n"
        "A model that is no better than the mean, the last value or the declared rule is refused."
    )


def run(options: argparse.Namespace) -> int:
    """Train, register, and say how good it is."""
    from boucle.features.view import FeatureView
    from boucle.lake.history import moment_of
    from boucle.models.registry import registry_of
    from boucle.models.train import train
    from boucle.product.project import load_project

    project = load_project(options.product, options.env)
    name = _chosen(options.model, project.loop.models)
    spec = project.loop.models[name]
    views = [FeatureView.declared(one, project.loop.features[one]) for one in spec.views]
    cut = int(moment_of(options.cut).timestamp() * 1e9) if options.cut else None
    screen = Screen("en")
    trained = train(name, spec, views, source_of(options), cut=cut, told=_bar(screen))
    screen.done()
    version = None
    if not options.dry_run:
        registry = registry_of(options.product, options.env)
        version = registry.add(trained.model, note=options.note, files=trained.files)
        if spec.keep:
            registry.keep(name, spec.keep)
    record = trained.record
    if options.json:
        told: dict[str, Any] = {"version": str(version) if version else None, "sha256": record.sha256}
        shown = ("metrics", "baselines", "rows", "parameters", "seconds", "equal")
        told |= {one: getattr(record, one) for one in shown}
        print(json.dumps(told))
        return 0
    metric = spec.measured_by
    below = ", ".join(f"{one} {figures[metric]:.4g}" for one, figures in record.baselines.items())
    print(
        f"{version or name}: {metric} {record.metrics[metric]:.4g} on {record.rows['test']} newer rows ({below})"
    )
    if version:
        print(f"boucle promote {name} {version.number} makes it champion")
    return 0


def source_of(options: argparse.Namespace) -> Any:
    """Where the tables are: beside product.yaml, and in the lake of the run."""
    from boucle.features.source import Source
    from boucle.product.project import Settings

    settings = Settings(options.product, options.env)
    folder = options.folder or Path(str(settings.get("run.folder").value))
    return Source(options.product, folder / "lake")


def _chosen(asked: str | None, known: dict[str, Any]) -> str:
    if asked in known:
        return str(asked)
    if asked is None and len(known) == 1:
        return next(iter(known))
    what = f"product.yaml declares no model {asked!r}" if asked else "which model?"
    raise BoucleError(
        "B635", what, why=f"models: {', '.join(known) or 'none'}", fix="boucle train NAME --product FOLDER"
    )


def _bar(screen: Screen) -> Callable[[str, int, int], None]:
    def told(what: str, done: int, of: int) -> None:
        bar = f" [{'█' * (20 * done // of):<20}] {done} of {of}" if of else " …"
        screen.progress(what + bar)

    return told

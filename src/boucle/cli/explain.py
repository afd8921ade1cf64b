"""`boucle explain`: every value of the plan, and where it came from."""

import argparse
import inspect
import json
from pathlib import Path
from typing import Any

from boucle.address import parse_address
from boucle.clock import SystemClock
from boucle.errors import BoucleError
from boucle.product.document import KeepSpec, SourceSpec, StepSpec, kept
from boucle.product.lines import Path_
from boucle.product.project import Project

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle explain`."""
    parser.add_argument(
        "folder", nargs="?", default=".", type=Path, help="the product's folder (default: here)"
    )
    parser.add_argument("--env", help="an environment of boucle.toml")
    parser.add_argument("--json", action="store_true", help="one JSON object: {path, values}")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the path into an SVG file")
    parser.add_argument(
        "--run", type=Path, metavar="RUN", help="a run's folder: its states' sizes in the picture"
    )
    parser.epilog = (
        "examples:\n  boucle explain examples/press\n  boucle explain --env plant | grep plc\n"
        "  boucle explain examples/press --picture press.svg --run run/demo-press"
    )


def run(options: argparse.Namespace) -> int:
    """Print the path as a picture, then value after value with its origin."""
    from boucle.loop.plan import build_plan
    from boucle.product.project import load_project

    project = load_project(options.folder, options.env)
    plan = build_plan(project)
    if options.picture:
        options.picture.write_text(_drawn(project, options.run), encoding="utf-8")
        print(options.picture)
        return 0
    values = [*_settings(project), *_declared(project), *_defaults(project, plan.steps)]
    picture = _picture(project)
    if options.json:
        rows = [{"value": name, "is": value, "from": origin} for name, value, origin in values]
        print(
            json.dumps(
                {"product": project.id, "path": picture, "values": rows}, ensure_ascii=False, default=str
            )
        )
        return 0
    print("\n".join(picture), end="\n\n")
    width = max(len(name) for name, _, _ in values)
    for name, value, origin in values:
        print(f"{name:<{width}}  {value!s}  ← {origin}")
    return 0


def _drawn(project: Project, run: Path | None) -> str:
    from boucle.cli.plan_picture import draw, nodes_of
    from boucle.loop.checkpoint import read_checkpoint

    loop = project.loop
    promises = {
        name: _delivery(project.settings.fill(spec.from_), spec).partition(":")[0]
        for name, spec in loop.sources.items()
    }
    spread = {step.id: _spread(project, step) for step in loop.steps if step.by}
    kept = read_checkpoint(run / "checkpoint") if run else None
    if run and kept is None:
        fix = "give the folder of a run that has written its first checkpoint"
        raise BoucleError("B808", "there is no checkpoint", where=str(run), fix=fix)
    sizes = {step: sum(stored.sizes.values()) for step, stored in kept.state.items()} if kept else {}
    return draw(nodes_of(loop, promises, spread, sizes), project.id)


def _spread(project: Project, step: StepSpec) -> str:
    workers = min(int(project.settings.get("run.workers").value), step.groups)
    return (
        f"by {', '.join(step.by)}: {step.groups} key groups on {workers} process{'es' if workers > 1 else ''}"
    )


def _picture(project: Project) -> list[str]:
    loop = project.loop
    lines = [f"{project.id} {project.product.value.get('version', '')}".rstrip()]
    for name, source in loop.sources.items():
        address = project.settings.fill(source.from_)
        lines.append(f"  ▶ {name}  from {address}  promises {source.schema}")
        lines.append(
            f"  │   late after {source.lateness}, idle after {source.idle}; {_delivery(address, source)}"
        )
        lines.append(f"  │   {_load(source)}; {_keeping(source)}")
    for step in loop.steps:
        lines.append(f"  ├ {step.id}  = {step.use}({', '.join(step.from_)})")
        if step.by:
            lines.append(f"  │   {_spread(project, step)}")
        if kept(step.keep) != KeepSpec():
            lines.append(f"  │   {_keeping(step)}")
    for rule in loop.rules:
        targets = [str(command.get("target", "?")) for command in rule.get("commands", [])]
        lines.append(
            f"  ├ rule {rule.get('id', '?')}  on {rule.get('on', '?')}  → {', '.join(targets) or 'event'}"
        )
    for name, table in loop.tables.items():
        place = f"to {project.settings.fill(table.to)}" if table.to else f"by {', '.join(table.partition)}"
        lines.append(f"  ■ {table.zone}/{name}  from {table.from_}  {place}")
    for name, actuator in loop.actuators.items():
        lines.append(
            f"  ◆ {name}  to {project.settings.fill(actuator.to)}  limits {', '.join(actuator.limits)}"
        )
    return lines


def _delivery(address: str, source: SourceSpec) -> str:
    """What becomes of a reading that is sent once: from the adapter's facts and what is declared."""
    from boucle.loop.intake import open_source

    facts = open_source(
        parse_address(address, "source"), "explained", SystemClock(), "explained", source.with_
    ).facts
    if facts.delivery == "at-most-once":
        return "at most once: what is sent while nobody listens is lost"
    if facts.replayable:
        return "exactly once: read again from where the checkpoint stood"
    if source.dedupe:
        return f"exactly once: sent again until kept, known by {'+'.join(source.dedupe)} for {source.horizon}"
    return "at least once: declare dedupe, or a row may be there twice"


def _load(source: SourceSpec) -> str:
    if source.shed is None:
        return "waits when the path is slower"
    return f"shed while the path is more than {source.shed.after} behind"


def _keeping(spec: SourceSpec | StepSpec) -> str:
    keep = kept(spec.keep)
    limits = [f"for {keep.age}" if keep.age else "", f"up to {keep.bytes}" if keep.bytes else ""]
    told = " and ".join(one for one in limits if one)
    return f"its log keeps rows {told}" if told else "its log keeps every row"


def _settings(project: Project) -> list[tuple[str, Any, str]]:
    return [
        (setting.name, setting.value, f"{setting.origin} (tried: {', '.join(setting.tried)})")
        for setting in project.settings.all()
    ]


def _declared(project: Project) -> list[tuple[str, Any, str]]:
    document = project.loop_document
    found: list[tuple[str, Any, str]] = []

    def walk(value: Any, path: Path_) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, (*path, key))
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for index, inner in enumerate(value):
                walk(inner, (*path, index))
        else:
            found.append((".".join(map(str, path)), value, f"{document.file}:{document.line(path)}"))

    walk(document.value, ())
    return found


def _defaults(project: Project, steps: Any) -> list[tuple[str, Any, str]]:
    found = []
    declared = {spec.id: spec.with_ for spec in project.loop.steps}
    for step in steps:
        factory = type(step.operator)
        for name, parameter in inspect.signature(factory).parameters.items():
            if parameter.default is not inspect.Parameter.empty and name not in declared[step.id]:
                found.append((f"steps.{step.id}.with.{name}", parameter.default, f"default of {step.use}"))
    return found

"""`boucle check`: is the declaration sound? Of one product, of many and what they feed, of one contract."""

import argparse
import json
from pathlib import Path
from typing import Any

from boucle.cli.screen import Screen, print_error
from boucle.errors import BoucleError, DeclarationError, Problem

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle check`."""
    parser.add_argument(
        "folder",
        nargs="?",
        default=".",
        type=Path,
        help="the product's folder (default: here), a folder of many products, or one contract's file",
    )
    parser.add_argument("--env", help="an environment of boucle.toml")
    parser.add_argument("--json", action="store_true", help="one JSON object: {ok, problems}")
    parser.epilog = (
        "examples:\n  boucle check examples/press\n  boucle check --env plant --json\n"
        "  boucle check products            every product below, and the graph between them\n"
        "  boucle check orders.odcs.yaml    a contract that stands alone"
    )


def run(options: argparse.Namespace) -> int:
    """Print every problem; 1 when there is any."""
    folder: Path = options.folder
    if folder.is_file() and folder.name != "product.yaml":
        sound, problems = _contract(folder)
    elif folder.is_dir() and not (folder / "product.yaml").exists() and (files := _below(folder)):
        sound, problems = _many(folder, files, options.env)
    else:
        sound, problems, _ = _product(folder.parent if folder.is_file() else folder, options.env)
    problems.sort(key=lambda problem: (problem.file, problem.line))
    if options.json:
        told = [{f: getattr(p, f) for f in p.__struct_fields__} for p in problems]
        print(json.dumps({"ok": not problems, "problems": told}, ensure_ascii=False))
    elif problems:
        print_error(DeclarationError(problems), as_json=False)
    else:
        print(sound)
    return 1 if problems else 0


def _product(
    folder: Path, environment: str | None, shown: str | None = None
) -> tuple[str, list[Problem], Any]:
    """What is said of a sound product, its problems, and the product as far as it can be read."""
    from boucle.loop.personal import personal_features
    from boucle.loop.plan import build_plan
    from boucle.outlet.notes import notes
    from boucle.outlet.ports import port_problems
    from boucle.product.project import read_project

    project, problems = read_project(folder, environment, shown=shown)
    if project is None:
        return "", problems, None
    problems += port_problems(project.product, notes(project.contract.value))
    try:
        plan = build_plan(project)
    except DeclarationError as error:
        # Both looks see the same mistake now and then; it is told once.
        return "", problems + [one for one in error.problems if one not in problems], project
    problems += personal_features(project)
    loop = project.loop
    sound = (
        f"{project.id}: sound. {len(loop.sources)} sources, {len(plan.steps)} steps, "
        f"{len(loop.tables)} tables, {len(loop.actuators)} actuators, {len(plan.rules)} rules."
    )
    return sound, problems, project


def _contract(file: Path) -> tuple[str, list[Problem]]:
    from boucle.product.promise import read_promise

    promise, problems = read_promise(file, str(file))
    return f"{promise.id}: sound, as far as the standard goes.", problems


def _below(folder: Path) -> list[Path]:
    from boucle.product.promise import promise_files

    return list(promise_files(folder))


def _many(folder: Path, files: list[Path], environment: str | None) -> tuple[str, list[Problem]]:
    """Every product and contract below a folder, then what they feed each other."""
    from boucle.product.graph import graph_problems
    from boucle.product.promise import Promise, read_promise

    screen = Screen("en")
    promises: list[Promise] = []
    problems: list[Problem] = []
    for number, file in enumerate(files, 1):
        shown = str(file.relative_to(folder))
        if number % 50 == 0:
            screen.progress(f"{number} of {len(files)}: {shown}")
        project: Any = None
        found: list[Problem] = []
        if file.name == "product.yaml":
            try:
                _, found, project = _product(file.parent, environment, shown)
            except BoucleError as error:
                found = [Problem(error.code, error.what, shown, 1, error.why, error.fix)]
        if project is not None:
            promises.append(Promise(shown, project.product, project.contract))
        else:
            promise, unreadable = read_promise(file, shown)
            promises += [] if unreadable else [promise]
            found += [one for one in unreadable if one not in found]
        problems += found
    screen.done()
    problems += graph_problems(promises, complete=len(promises) == len(files))
    return f"{folder}: sound. {len(files)} files.", problems

"""`boucle check`: is the declaration sound?"""

import argparse
import json
from pathlib import Path

from boucle.cli.screen import print_error
from boucle.errors import DeclarationError

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle check`."""
    parser.add_argument(
        "folder", nargs="?", default=".", type=Path, help="the product's folder (default: here)"
    )
    parser.add_argument("--env", help="an environment of boucle.toml")
    parser.add_argument("--json", action="store_true", help="one JSON object: {ok, problems}")
    parser.epilog = "examples:\n  boucle check examples/press\n  boucle check --env plant --json"


def run(options: argparse.Namespace) -> int:
    """Print every problem; 1 when there is any."""
    from boucle.loop.plan import build_plan
    from boucle.product.project import read_project

    project, problems = read_project(options.folder, options.env)
    if project is not None:
        try:
            plan = build_plan(project)
        except DeclarationError as error:
            # Both looks see the same mistake now and then; it is told once.
            problems += [one for one in error.problems if one not in problems]
    problems.sort(key=lambda problem: (problem.file, problem.line))
    if options.json:
        told = [{f: getattr(p, f) for f in p.__struct_fields__} for p in problems]
        print(json.dumps({"ok": not problems, "problems": told}, ensure_ascii=False))
    elif problems:
        print_error(DeclarationError(problems), as_json=False)
    else:
        loop = plan.project.loop
        print(
            f"{plan.project.id}: sound. {len(loop.sources)} sources, {len(plan.steps)} steps, "
            f"{len(loop.tables)} tables, {len(loop.actuators)} actuators, {len(plan.rules)} rules."
        )
    return 1 if problems else 0

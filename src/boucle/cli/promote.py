"""`boucle promote`: a version becomes champion when its gates pass."""

import argparse
import json
from pathlib import Path

from msgspec import structs

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle promote`."""
    parser.add_argument("model", help="its name")
    parser.add_argument("version", type=int, help="its number; boucle models list shows them")
    parser.add_argument(
        "--role", default="champion", help="champion (default), challenger, or a word of yours"
    )
    parser.add_argument(
        "--approve", metavar="NAME", default="", help="who approves, where a gate asks for it"
    )
    parser.add_argument("--because", default="", help="why; kept in the history")
    parser.add_argument("--product", type=Path, default=Path(), help="the product's folder (default: here)")
    parser.add_argument("--env", help="an environment of boucle.toml")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.epilog = (
        "examples:\n  boucle promote fraud 3 --role challenger\n"
        '  boucle promote fraud 3 --approve "A. Martin" --because "two weeks in shadow"'
    )


def run(options: argparse.Namespace) -> int:
    """Judge, promote, and show the evidence."""
    from boucle.models.gates import promote_by_gates
    from boucle.models.registry import registry_of

    registry = registry_of(options.product, options.env)
    roles, results = promote_by_gates(
        registry,
        options.model,
        options.version,
        options.role,
        approved_by=options.approve,
        why=options.because,
    )
    if options.json:
        told = [structs.asdict(one) for one in results]
        print(json.dumps({"roles": roles.roles, "generation": roles.generation, "gates": told}))
        return 0
    for one in results:
        print(f"  ✓ {one.gate}: {one.found}")
    print(f"{options.model}/{options.version} is {options.role}")
    return 0

"""`boucle refine`: tables made from tables, published when their gates pass."""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from boucle.cli.answer import print_rows
from boucle.cli.lake import lake_of, lake_options
from boucle.cli.screen import print_error
from boucle.errors import DeclarationError

if TYPE_CHECKING:
    from boucle.lake.whole import Lake
    from boucle.product.project import Project
    from boucle.refine.run import Outcome
    from boucle.refine.transform import Transform

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle refine`."""
    parser.add_argument(
        "product", nargs="?", default=".", type=Path, help="the product's folder (default: here)"
    )
    parser.add_argument("only", nargs="*", metavar="TABLE", help="only these transformations")
    parser.add_argument(
        "--full", action="store_true", help="make the tables anew, whatever was applied before"
    )
    parser.add_argument(
        "--sample", metavar="SHARE", help="try on 1%% of the inputs' rows, always the same; publish nothing"
    )
    parser.add_argument(
        "--test", action="store_true", help="run the cases of sql/tests/NAME.yaml, touch no lake"
    )
    parser.add_argument("--lint", action="store_true", help="what sqlfluff says of the SQL, touch no lake")
    parser.add_argument("--held", action="store_true", help="batches that gates held back, newest first")
    parser.add_argument("--env", help="an environment of boucle.toml")
    lake_options(parser)
    parser.epilog = (
        "examples:\n  boucle refine examples/shop\n  boucle refine examples/shop spent --full\n"
        "  boucle refine examples/shop --test\n  boucle refine examples/shop --lint\n"
        "  boucle refine examples/shop --sample 1% --json\n  boucle refine examples/shop --held"
    )


def run(options: argparse.Namespace) -> int:
    """0 when everything was published, or nothing was new; 1 when a gate held a batch back or a case failed."""
    from boucle.product.project import load_project
    from boucle.refine.transform import transforms_of

    project = load_project(options.product, options.env)
    transforms = transforms_of(project, tuple(options.only))
    if options.lint:
        return _lint(options, transforms)
    if options.test:
        return _test(options, project, transforms)
    if options.held:
        return _held(options, project)
    return _refine(options, project, transforms)


def _folder(options: argparse.Namespace, project: "Project") -> Path:
    """Where what is staged and held back lies: beside the lake."""
    return Path(options.folder or project.path("run.folder")) / "refine"


def _refine(options: argparse.Namespace, project: "Project", transforms: "list[Transform]") -> int:
    options.folder = options.folder or project.path("run.folder")
    lake = lake_of(options)
    if options.sample:
        with TemporaryDirectory() as apart:
            outcomes = _sampled(options, project, transforms, lake, Path(apart))
    else:
        outcomes = [_one(one, lake, _folder(options, project), options.full) for one in transforms]
    if options.json:
        print(json.dumps([_plain(outcome) for outcome in outcomes], ensure_ascii=False))
    else:
        for outcome in outcomes:
            _tell(outcome, tried=bool(options.sample))
    return int(any(outcome.state == "held" for outcome in outcomes))


def _one(
    transform: "Transform", lake: "Lake", folder: Path, full: bool, samples: dict[str, str] | None = None
) -> "Outcome":
    from boucle.refine.run import refine

    print(f"{transform.name} …", file=sys.stderr)
    return refine(transform, lake, folder, full=full, samples=samples)


def _sampled(
    options: argparse.Namespace, project: "Project", transforms: "list[Transform]", lake: "Lake", apart: Path
) -> "list[Outcome]":
    """Everything on a share of the rows that come from outside, published where nobody looks."""
    from boucle.refine.samples import Sampled, cut

    made = [one.name for one in transforms]
    other = Sampled(lake, apart / "lake", made)
    outcomes = []
    for one in transforms:
        outside = [text for text in one.spec.from_ if text.rpartition(".")[2] not in made]
        samples = {text: cut(options.sample, _key(project, lake, text)) for text in outside}
        outcomes.append(_one(one, other, apart / "refine", True, samples))
        if outcomes[-1].state == "held":
            break  # what reads it has nothing to read
    return outcomes


def _key(project: "Project", lake: "Lake", text: str) -> list[str]:
    """The columns that identify a row of an input; where none are declared, all of them."""
    from boucle.refine.inputs import shown_columns

    table = text.rpartition(".")[2]
    spec: Any = project.loop.tables.get(table) or project.loop.transforms.get(table)
    return list(spec.key) if spec and spec.key else shown_columns(lake.find(text).schema)


def _plain(outcome: "Outcome") -> Any:
    import msgspec

    return msgspec.to_builtins(outcome)


def _tell(outcome: "Outcome", *, tried: bool) -> None:
    published = f"published as version {outcome.version}, {outcome.rows} rows"
    words = {
        "published": f"passes with {outcome.rows} rows of the sample" if tried else published,
        "held": "does not pass" if tried else f"held back; consumers still see version {outcome.version}",
        "unchanged": "nothing is new",
    }
    print(f"{outcome.name}: {words[outcome.state]} ({outcome.seconds:.1f} s)")
    for one in outcome.verdicts:
        mark = "✓" if one.holds else ("▲" if one.severity == "warning" else "✗")
        print(f"  {mark} {one.gate}: {one.says}")
        for row in one.sample[:3] if not one.holds else []:
            print(f"      {row}")
    if outcome.held_in and not tried:
        print(f"  the batch and the reason: {outcome.held_in}")


def _lint(options: argparse.Namespace, transforms: "list[Transform]") -> int:
    from boucle.refine.lint import lint

    problems = lint(transforms, options.product)
    if options.json:
        told = [{name: getattr(one, name) for name in one.__struct_fields__} for one in problems]
        print(json.dumps({"ok": not problems, "problems": told}, ensure_ascii=False))
    elif problems:
        print_error(DeclarationError(problems), as_json=False)
    else:
        print(f"{len(transforms)} files, nothing to say")
    return int(bool(problems))


def _test(options: argparse.Namespace, project: "Project", transforms: "list[Transform]") -> int:
    from boucle.refine.samples import try_samples

    tried = [one for transform in transforms for one in try_samples(transform, project)]
    rows = [{"transform": t.transform, "case": t.case, "passed": t.passed, "says": t.says} for t in tried]
    if options.json:
        print_rows(rows, as_json=True)
    else:
        for one in tried:
            print(
                f"{'✓' if one.passed else '✗'} {one.transform}: {one.case}"
                + ("" if one.passed else f"\n    {one.says}")
            )
        print(f"{sum(one.passed for one in tried)} of {len(tried)} cases pass", file=sys.stderr)
    return int(not all(one.passed for one in tried))


def _held(options: argparse.Namespace, project: "Project") -> int:
    from boucle.cli.lake import moment
    from boucle.refine.run import held

    rows = []
    for name in options.only or [""]:
        for one in held(_folder(options, project), name):
            failed = [f"{gate.gate}: {gate.says}" for gate in one.verdicts if not gate.holds]
            row: dict[str, Any] = {"transform": one.name, "at": moment(one.at_ms), "rows": one.rows}
            rows.append({**row, "why": "; ".join(failed), "folder": one.folder})
    print_rows(rows, as_json=options.json)
    return 0

"""The SQL of a product as sqlfluff sees it: one way to write, checked by the tool people know."""

from collections.abc import Sequence
from pathlib import Path

from boucle.errors import MissingExtra, Problem
from boucle.refine.transform import Transform

__all__ = ["lint"]


def lint(transforms: Sequence[Transform], product: Path) -> list[Problem]:
    """What sqlfluff finds, file by file; its settings are those of `.sqlfluff` beside product.yaml, or its own.

    MissingExtra when sqlfluff is not installed.
    """
    try:
        from sqlfluff.core import FluffConfig, Linter
    except ModuleNotFoundError as error:
        raise MissingExtra("boucle refine --lint", "sqlfluff", "sqlfluff") from error

    config = FluffConfig.from_path(str(product), overrides={"dialect": "duckdb"})
    linter = Linter(config=config)
    problems = []
    for one in transforms:
        if one.spec.use != "sql":
            continue
        for found in linter.lint_string(one.text, fname=str(one.file)).get_violations():
            what = f"{found.rule_code()} {' '.join(found.desc().split())}"
            why = "sqlfluff, the style of the product's SQL"
            fix = f"`sqlfluff fix --dialect duckdb {one.file}`"
            problems.append(Problem("B536", what, str(one.file), found.line_no, why, fix))
    return sorted(problems, key=lambda problem: (problem.file, problem.line))

"""A dbt project as one step: it builds its models over the lake's tables, and one of them is staged like any SQL.

dbt is a program of its own environment, never a library here: it is found as `dbt` on the PATH, or where BOUCLE_DBT
says. The inputs are Parquet files that a database of dbt's own DuckDB shows as sources (schema `lake`, and
`changed` for incremental modes), so that no file of one DuckDB is opened by another.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from boucle.errors import BoucleError
from boucle.lake.duck import literal, name
from boucle.refine.stage import Inputs
from boucle.refine.transform import CHANGED, Transform, bare

__all__ = ["build", "find_dbt"]

_PATIENCE = 3600
_PROFILE = """boucle:
  target: lake
  outputs:
    lake: {{type: duckdb, path: {path}, schema: main, threads: 2}}
"""
_SHOW = "import duckdb, json, sys\n"
_SHOW += "duck = duckdb.connect(sys.argv[1]); [duck.execute(one) for one in json.load(sys.stdin)]"


def find_dbt() -> Path:
    """The dbt program; B540 when there is none."""
    found = os.environ.get("BOUCLE_DBT") or shutil.which("dbt")
    if found is None or not Path(found).exists():
        raise BoucleError(
            "B540",
            "there is no dbt program",
            where=found or "PATH",
            why="a transform says `use: dbt`; dbt lives in an environment of its own",
            fix='python -m venv dbt; dbt/bin/pip install "dbt-core<1.12" dbt-duckdb; BOUCLE_DBT=dbt/bin/dbt',
        )
    return Path(found)


def build(transform: Transform, duck: Any, inputs: Inputs, file: Path) -> None:
    """Run the project and leave the rows of its model in `file`.

    B535 says what dbt said when the project cannot be read, or a model or a test of it failed.
    """
    program = find_dbt()
    work = file.parent / "dbt"
    work.mkdir()
    model = transform.spec.model or transform.name
    database = work / "project.duckdb"
    _python(program, database, _sources(transform, duck, inputs, work))
    (work / "profiles.yml").write_text(_PROFILE.format(path=json.dumps(str(database))), encoding="utf-8")
    words = [str(program), "--no-use-colors", "--log-format", "text", "build", "--select", f"+{model}"]
    words += ["--project-dir", str(transform.file), "--profiles-dir", str(work), "--profile", "boucle"]
    words += ["--target-path", str(work / "target"), "--log-path", str(work / "logs")]
    words += ["--vars", json.dumps({**transform.spec.with_, "inputs": [bare(one) for one in inputs.tables]})]
    done = _run(transform, words)
    if done.returncode:
        raise BoucleError(
            "B535",
            f'the dbt project of "{transform.name}" failed',
            where=str(transform.file),
            why=_said(done.stdout),
            fix="correct the model or the data; dbt's own log says more: " + str(work / "logs"),
        )
    copy = f"COPY (SELECT * FROM main.{name(model)}) TO {literal(str(file))} (FORMAT parquet)"  # a table, not user text
    _python(program, database, [copy])


def _sources(transform: Transform, duck: Any, inputs: Inputs, work: Path) -> list[str]:
    """Parquet files of what the transformation may read, and the views that show them to dbt."""
    lines = ["CREATE SCHEMA IF NOT EXISTS lake", f"CREATE SCHEMA IF NOT EXISTS {CHANGED}"]
    for text, table in inputs.tables.items():
        views = {"lake": f"{name(table.zone)}.{name(bare(text))}"}
        if transform.spec.mode != "full":
            views[CHANGED] = f"{CHANGED}.{name(bare(text))}"
        for schema, view in views.items():
            target = work / f"{schema}.{bare(text)}.parquet"
            duck.execute(f"COPY (SELECT * FROM {view}) TO {literal(str(target))} (FORMAT parquet)")
            read = f"SELECT * FROM read_parquet({literal(str(target))})"
            lines.append(f"CREATE VIEW {schema}.{name(bare(text))} AS {read}")
    return lines


def _python(program: Path, database: Path, lines: list[str]) -> None:
    """Run statements in dbt's own DuckDB, by the interpreter beside it."""
    done = subprocess.run(  # noqa: S603 - the interpreter beside the dbt the user chose
        [str(program.parent / "python"), "-c", _SHOW, str(database)],
        input=json.dumps(lines), capture_output=True, text=True, timeout=_PATIENCE, check=False,
    )  # fmt: skip
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BoucleError(
            "B535",
            "the DuckDB beside dbt cannot show the tables or give the model's rows",
            where=str(program),
            why=why,
            fix="install dbt-duckdb beside dbt-core, in one environment",
        )


def _run(transform: Transform, words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DO_NOT_TRACK": "1"}
    try:
        return subprocess.run(  # noqa: S603 - the dbt the user chose
            words,
            cwd=transform.file,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BoucleError(
            "B535",
            f'the dbt project of "{transform.name}" took longer than {error.timeout:.0f} s',
            where=str(transform.file),
            fix="make its models smaller, or run dbt outside the loop",
        ) from None


def _said(output: str) -> str:
    """The lines of dbt's output that say what went wrong."""
    lines = [line.partition("  ")[2].strip() or line.strip() for line in output.splitlines()]
    found = [line for line in lines if line]
    for index, line in enumerate(found):
        if "Error" in line or "ERROR" in line or "FAIL" in line:
            return " · ".join(found[index : index + 4])[:600]
    return " · ".join(found[-3:])[:600]

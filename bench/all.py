"""Run every benchmark and renew the tables of docs/figures.md, each between its own markers."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import msgspec

import bench
from bench.figures import ROOT, Figure, options, table

PAGE = ROOT / "docs" / "figures.md"
HEAD = """# Figures

Measured by `make bench` (each: `python -m bench.NAME [--quick] [--json]`); goals and peers stand beside
the values, and a peer was always measured in the same run on the same work. Written by a program:
text outside the markers stays, tables between them are renewed.
"""
NOT_BENCHMARKS = {"all", "figures", "soak", "workloads"}


def names() -> list[str]:
    """Every benchmark there is."""
    found = (one.name for one in pkgutil.iter_modules(bench.__path__) if not one.ispkg)
    return sorted(name for name in found if name not in NOT_BENCHMARKS and not name.startswith("_"))


def run(name: str, quick: bool) -> tuple[str, dict[str, str]]:
    """The table of one benchmark in its own process, and where it was measured; fails if it fails."""
    command = [sys.executable, "-m", f"bench.{name}", "--json", *(["--quick"] if quick else [])]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    said = json.loads(done.stdout)
    figures = [msgspec.convert(one, Figure) for one in said["figures"]]
    return table(figures), {"machine": said["machine"], "commit": said["commit"]}


def renew(page: str, name: str, body: str) -> str:
    """The page with the part between the markers of `name` replaced, or added at its end."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    part = f"{begin}\n{body}\n{end}"
    if begin in page and end in page:
        return page[: page.index(begin)] + part + page[page.index(end) + len(end) :]
    return f"{page.rstrip()}\n\n{part}\n"


def summary(name: str) -> str:
    """The first sentence of a benchmark's docstring."""
    source = Path(str(bench.__path__[0])) / f"{name}.py"
    return source.read_text(encoding="utf-8").partition('"""')[2].partition("\n")[0].strip(' ".') + "."


def main() -> int:
    asked = options(__doc__)
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else HEAD
    failed = []
    for name in names():
        print(f"bench.{name} ...", file=sys.stderr, flush=True)
        try:
            rows, where = run(name, asked.quick)
        except subprocess.CalledProcessError as error:
            failed.append(name)
            print(f"bench.{name} failed with exit code {error.returncode}", file=sys.stderr)
            continue
        quick = ", quick run" if asked.quick else ""
        note = f"{where['machine']}; commit {where['commit']}{quick}"
        page = renew(page, name, f"## {name}\n\n{summary(name)}\n\n{rows}\n\n{note}")
        PAGE.write_text(page, encoding="utf-8")
        if not asked.json:
            print(f"\n{rows}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

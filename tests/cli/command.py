"""`boucle` as people run it: in a process of its own, in a folder of their choice."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PRESS = ROOT / "examples" / "press"

BOUCLE = [sys.executable, "-m", "boucle.cli.main"]
PATIENCE = 120.0


def environment() -> dict[str, str]:
    """The surroundings of a stranger: English, no settings of ours."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("BOUCLE_")}
    return {**mine, "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT / "src")}


def boucle(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    command = [*BOUCLE, *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def told(done: subprocess.CompletedProcess[str]) -> Any:
    """Standard output, which is one JSON value and nothing else."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def children(of: int) -> set[int]:
    """The processes that came from one, theirs included."""
    found: set[int] = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = status.read_text().partition(" (")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(rest.rpartition(") ")[2].split()[1]) == of:
            found |= {int(number), *children(int(number))}
    return found

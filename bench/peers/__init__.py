"""The peers of the engine benchmarks: other people's engines on our workloads, each in its own environment.

A peer is a folder with `requirements.txt` (pinned), `w1.py` and `w2.py`. `python -m bench.peers` makes the
environments under run/peers; a benchmark makes the ones it misses, except in a quick run.
"""

import subprocess
import sys
from pathlib import Path

__all__ = ["FOLDER", "NAMES", "Unusable", "environment"]

FOLDER = Path(__file__).resolve().parent
_ENVIRONMENTS = FOLDER.parent.parent / "run" / "peers"
NAMES = ("bytewax", "quix", "spark", "flink")
_PYTHON = "3.11"


class Unusable(Exception):
    """A peer that can not be measured here; its text is the reason."""


def environment(name: str, *, make: bool) -> Path:
    """The Python of a peer's environment, made when it is missing or its pins changed, if `make`."""
    home = _ENVIRONMENTS / name
    python, done = home / "bin" / "python", home / ".ready"
    pins = (FOLDER / name / "requirements.txt").read_text(encoding="utf-8")
    if done.exists() and done.read_text(encoding="utf-8") == pins:
        return python
    if not make:
        raise Unusable("no environment yet: python -m bench.peers makes it")
    print(f"making run/peers/{name} ...", file=sys.stderr, flush=True)
    _run(["uv", "venv", "--quiet", "--clear", "--python", _PYTHON, str(home)])
    wanted = str(FOLDER / name / "requirements.txt")
    _run(["uv", "pip", "install", "--quiet", "--python", str(python), "--requirement", wanted])
    done.write_text(pins, encoding="utf-8")
    return python


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=1200)
    except FileNotFoundError as error:
        raise Unusable(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Unusable(f"{command[0]} took longer than {error.timeout:.0f} s") from error
    except subprocess.CalledProcessError as error:
        lines = str(error.stderr).strip().splitlines()
        raise Unusable(lines[-1] if lines else f"{command[0]} failed") from error

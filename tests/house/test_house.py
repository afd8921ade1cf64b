"""The rules of the house that no linter knows."""

import ast
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.house.tree import ROOT, SOURCE, imported, modules, tracked

# Each reaches one system beyond this process. DuckDB, which computes within it, is no driver: several rooms use it.
DRIVERS = (
    "amqtt",
    "asyncua",
    "deltalake",
    "httpx",
    "onnxruntime",
    "paho",
    "psycopg",
    "skl2onnx",
    "uvicorn",
)

HEAVY = {
    "duckdb",
    "numpy",
    "pyarrow",
    "scipy",
    "sklearn",
    "yaml",
    "jsonschema",
    "asyncio",
    "starlette",
    "jinja2",
    *DRIVERS,
}

LOADED = """
import sys, time
begun = time.perf_counter()
import boucle
took = time.perf_counter() - begun
print(took * 1000)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_rooms_stand_on_their_floors() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_boucle_loads_no_driver_and_no_numeric_library() -> None:
    times, loaded = [], set()
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
        first, second = done.stdout.splitlines()
        times.append(float(first))
        loaded = set(second.split())
    print(f"import boucle: median {statistics.median(times):.1f} ms of 5")
    assert loaded & HEAVY == set()


def test_a_driver_is_imported_by_one_file_of_a_room() -> None:
    users: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, tree in modules(SOURCE):
        if path.is_relative_to(SOURCE / "testing"):
            continue
        for driver in {name.partition(".")[0] for name in imported(tree)} & set(DRIVERS):
            file = path.relative_to(SOURCE)
            users[driver, file.parts[0]].append(file.as_posix())
    assert {driver: files for driver, files in users.items() if len(files) > 1} == {}


def test_nothing_is_mocked() -> None:
    mocked = [
        path.relative_to(ROOT).as_posix()
        for folder in (SOURCE, ROOT / "tests")
        for path, tree in modules(folder)
        if any(name.startswith("unittest.mock") for name in imported(tree))
        or "mocker" in {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    ]
    assert mocked == []


def swallows(handler: ast.ExceptHandler) -> bool:
    """Whether it catches everything and does not raise it again."""
    kinds = {"Exception", "BaseException"}
    broad = handler.type is None or bool(kinds & set(re.findall(r"\w+", ast.unparse(handler.type))))
    last = handler.body[-1]
    return broad and not (isinstance(last, ast.Raise) and last.exc is None)


def test_only_the_boundaries_of_threads_and_requests_catch_everything() -> None:
    requests = (SOURCE / "serve" / "oip" / name for name in ("rest.py", "rpc.py"))
    threads = (SOURCE / "loop" / "run.py", SOURCE / "serve" / "worker.py")
    allowed = {*threads, *(SOURCE / "web").glob("*.py"), *requests}
    broad = [
        f"{path.relative_to(SOURCE).as_posix()}:{node.lineno}"
        for path, tree in modules(SOURCE)
        if path not in allowed
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and swallows(node)
    ]
    assert broad == []


def test_no_file_knows_one_machine() -> None:
    if not tracked():
        pytest.skip("not a git checkout: nothing to list the files with")
    path_of_one = re.compile(r"(?<![\w./:*-])/(?:home|Users|root|work)/[\w.]")
    found = []
    for path in tracked():
        if (
            path.suffix in {".png", ".jpg", ".svg", ".lock", ".arrow", ".onnx", ".gz"}
            or path.name == "package-lock.json"
        ):
            continue
        text = path.read_text(encoding="utf-8")
        found += [
            f"{path.relative_to(ROOT)}: {text[m.start() : m.end() + 20]}" for m in path_of_one.finditer(text)
        ]
    assert found == []


def test_no_room_is_called_nothing() -> None:
    vague = {"base", "common", "core", "helpers", "misc", "utils"}
    named = {path.stem.strip("_") for path in SOURCE.rglob("*") if "__pycache__" not in path.parts}
    assert named & vague == set()

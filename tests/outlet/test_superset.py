"""Apache Superset itself, by its own code, looks at the endpoint and asks it."""

import json
import subprocess
from pathlib import Path

import pytest
from bench.peers import FOLDER, Unusable, environment

from tests.outlet.served import endpoint, make_lake

ASKS = FOLDER / "superset" / "asks.py"


@pytest.mark.slow
@pytest.mark.real
def test_superset_introspects_and_asks(tmp_path: Path) -> None:
    try:
        python = environment("superset", make=False)
    except Unusable:
        pytest.skip(
            "Superset (800 MB) is not there: "
            "python -c \"from bench.peers import environment; environment('superset', make=True)\""
        )
    home = tmp_path / "superset"
    home.mkdir()
    with endpoint(make_lake(tmp_path / "lake")) as served:
        where = f"postgresql+psycopg2://ana@127.0.0.1:{served.port}/boucle"
        done = subprocess.run(
            [python, ASKS, where, str(home)], capture_output=True, text=True, timeout=280, check=False
        )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["engine"] == "postgresql"
    assert {"raw", "silver", "gold"} <= set(told["schemas"])
    assert (told["tables"], told["views"]) == (["features"], 0)
    assert told["columns"][:4] == [
        ["machine", "TEXT"],
        ["sensor", "TEXT"],
        ["at", "TIMESTAMP"],
        ["value", "DOUBLE_PRECISION"],
    ]
    assert told["comment"] == "One row per machine and second."
    assert told["key"] == ["machine", "at"]
    assert told["sample"] == 2
    assert told["grains"] >= 10  # every grain of time a chart can have
    assert told["lab"] == [["press-1", 2], ["press-2", 2]]
    assert told["cancel"]
    assert "nope" in told["mistake"]

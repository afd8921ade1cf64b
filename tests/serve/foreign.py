"""A model that is no ONNX, small enough to check by hand, and a stand-in for the Python of its environment."""

import sys
from pathlib import Path

import yaml

__all__ = ["SCORES", "logged", "python"]

SCORES = "risk = 2·a + b; a = -1 ends the process, -2 hangs it, -3 makes it large, -4 refuses"

_SPEAKS = """#!{python}
import os, sys, time
import pyarrow as pa
import pyarrow.compute as pc

out = os.fdopen(os.dup(1), "wb")
out.write(b"ok")
out.flush()
held = []
while len(head := sys.stdin.buffer.read(8)) == 8:
    rows = pa.ipc.open_stream(sys.stdin.buffer.read(int.from_bytes(head, "big"))).read_all()
    a = rows.column("a").to_pylist()
    assert str(rows.schema.field("b").type) == "int64", rows.schema
    if -1.0 in a:
        os._exit(3)
    if -2.0 in a:
        time.sleep(60)
    if -3.0 in a:
        held.append(b"x" * (300 << 20))
        time.sleep(60)
    scores = pc.add(pc.multiply(rows.column("a"), 2.0), pc.fill_null(rows.column("b"), 0))
    sink = pa.BufferOutputStream()
    told = pa.table({{"c0": scores.cast("double")}}, metadata={{"cpu_ns": "1000"}})
    with pa.ipc.new_stream(sink, told.schema) as writer:
        writer.write_table(told)
    body = b"!it is refused" if -4.0 in a else sink.getvalue().to_pybytes()
    out.write(len(body).to_bytes(8, "big") + body)
    out.flush()
"""


def python(folder: Path) -> Path:
    """An executable that takes the place of an interpreter with mlflow: it speaks as `pyfunc_child.py` does."""
    script = folder / "python"
    script.write_text(_SPEAKS.format(python=sys.executable))
    script.chmod(0o755)
    return script


def logged(folder: Path, output: str = "risk") -> Path:
    """A model folder as MLflow logs one: a double, a whole number that may be absent."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = '[{"type": "double", "name": "a", "required": true}, {"type": "long", "name": "b", "required": false}]'
    told = {
        "flavors": {
            "python_function": {"loader_module": "theirs"},
            "sklearn": {"pickled_model": "model.pkl"},
        },
        "run_id": "abc",
        "signature": {
            "inputs": inputs,
            "outputs": f'[{{"type": "double", "name": "{output}"}}]',
            "params": None,
        },
        "utc_time_created": "2026-11-22 00:00:00",
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(told))
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / "theirs.py").write_text("")
    return folder

"""Models of two columns whose scores are checked by hand, on a shelf, behind the protocol."""

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

from boucle.models.file import Column, ModelFile
from boucle.serve.oip.answering import Answering
from boucle.serve.oip.rest import Reply, Rest
from boucle.serve.oip.shelf import Shelf
from tests.models.tiny import BIAS, content


def shifted(by: float = 0.0, name: str = "tiny") -> ModelFile:
    """health = 1 + by - 0.1·a, rul_h = 2·a + b."""
    model = onnx.load_from_string(content())
    (bias,) = (one for one in model.graph.initializer if one.name == "bias")
    bias.CopyFrom(numpy_helper.from_array((BIAS + [by, 0.0]).astype("f4"), "bias"))  # noqa: RUF005
    return ModelFile.build(
        model.SerializeToString(),
        name=name,
        inputs=(Column("a", unit="g"), Column("b", type="int64")),
        outputs=(Column("health"), Column("rul_h", unit="h")),
        created="2026-11-21T00:00:00Z",
        trained_on={},
        metrics={},
    )


def answering(folder: Path, **how: Any) -> Answering:
    """A folder with one model called tiny."""
    shifted().save(folder / "tiny")
    return Answering(Shelf(folder), **how)


def columns(rows: int = 1, **changed: Any) -> dict[str, Any]:
    """A request by columns: a = 1, 2, …; b = 10, 20, …"""
    inputs = [
        {"name": "a", "shape": [rows], "datatype": "FP64", "data": [1.0 + row for row in range(rows)]},
        {"name": "b", "shape": [rows], "datatype": "INT64", "data": [10 * (row + 1) for row in range(rows)]},
    ]
    return {"id": "42", "inputs": inputs, **changed}


def ask(
    rest: Rest,
    body: Any = None,
    path: str = "/v2/models/tiny/infer",
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One request; `body` is bytes as they are, or JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    method = method or ("GET" if body is None else "POST")

    async def reply() -> Reply:
        found = rest.reply(method, path, headers or {}, raw, time.perf_counter())
        return found if isinstance(found, Reply) else await found

    return asyncio.run(reply())


def outputs(reply: Reply) -> dict[str, list[Any]]:
    """The data of each output, of an answer that is all JSON."""
    assert reply.status == 200, reply.body
    return {one["name"]: one["data"] for one in json.loads(reply.body)["outputs"]}

"""What a checkpoint holds, for a person: each step rebuilt from its parts, and asked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.errors import BoucleError
from boucle.loop.checkpoint import Kept
from boucle.loop.path import Closes, restore_parts
from boucle.loop.plan import build_operator
from boucle.ports import Describes, Operator
from boucle.product.document import StepSpec

__all__ = ["describe_step"]


def describe_step(
    kept: Kept, step: str, run: Path, product: Path | None, key: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What a step says of its state (`boucle.ports.Describes`), nothing where it cannot say.

    B815 when it cannot be built here: an operator or a model of the product's own needs the `product` folder.
    """
    operator = _rebuilt(kept, step, product)
    try:
        if not isinstance(operator, Describes):
            return {}
        _show_inputs(operator, kept.checkpoint.steps[step]["from"], run)
        return operator.describe(key)
    finally:
        if isinstance(operator, Closes):
            operator.close()


def _rebuilt(kept: Kept, step: str, product: Path | None) -> Operator:
    spec = msgspec.convert(kept.checkpoint.steps[step], StepSpec)
    try:
        operator = build_operator(spec, product or Path())
    except (BoucleError, ImportError, AttributeError, ValueError, TypeError) as error:
        what = f"{step} cannot be built: {spec.use}"
        raise BoucleError("B815", what, why=str(error), fix="name its folder: --product FOLDER") from error
    restore_parts(step, operator, kept.state[step])
    return operator


def _show_inputs(operator: Operator, streams: list[str], run: Path) -> None:
    """Let it see a Block without rows of each input that has a log: some know only then of what type their keys are."""
    for stream in streams:
        folder = run / "log" / stream
        block = next(EventLog(folder).read(None, 1), None) if folder.exists() else None
        if block is not None:
            nothing: pa.RecordBatch = block.rows.slice(0, 0)
            operator.step(Block(stream, nothing, 0, Position(stream, 0)))

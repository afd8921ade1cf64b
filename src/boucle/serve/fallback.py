"""What answers for rows their model did not score: the version before, a rule, constants; in the declared order."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.errors import BoucleError
from boucle.serve.declared import Constants, Previous, Rule
from boucle.serve.ready import Identity
from boucle.stream.expression import Expression, column_of

__all__ = ["Answered", "Fallbacks"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Answered = tuple[Rows, str, str]
"""Rows that were answered for, and by what: a model's name and version, or `rule`, `constants` and nothing."""


class Fallbacks:
    """The declared fallbacks of one step, for outputs of these names."""

    def __init__(
        self, stream: str, declared: Sequence[Previous | Rule | Constants], outputs: Sequence[str]
    ) -> None:
        self._declared, self._outputs = declared, list(outputs)
        self._rules = {
            place: {name: Expression(text) for name, text in one.columns.items()}
            for place, one in enumerate(declared)
            if isinstance(one, Rule)
        }
        for one in declared:
            given: Mapping[str, object] = (
                one.columns if isinstance(one, Rule) else one.values if isinstance(one, Constants) else {}
            )
            if unknown := [name for name in given if outputs and name not in outputs]:
                raise BoucleError(
                    "B650",
                    f"{stream}: a fallback gives {', '.join(unknown)}, which the model does not",
                    fix=f"the model gives {', '.join(outputs)}",
                )

    def __bool__(self) -> bool:
        return bool(self._declared)

    def answer(
        self,
        rows: pa.RecordBatch,
        index: Rows,
        values: Floats,
        previous: Callable[[Rows], tuple[Rows, Identity] | None],
    ) -> list[Answered]:
        """Fill in `values` (outputs, rows) for rows of the Block; who answered for which. The rest stays as it is."""
        told: list[Answered] = []
        for place, one in enumerate(self._declared):
            if len(index) == 0:
                break
            if isinstance(one, Previous):
                found = previous(index)
                if found is None:
                    continue
                done, by = found
                told.append((done, by.name, by.version))
            elif isinstance(one, Rule):
                done = self._by_rule(place, rows, index, values)
                told.append((done, "rule", ""))
            else:
                done = index
                for output, name in enumerate(self._outputs):
                    values[output, index] = one.values.get(name, np.nan)
                told.append((done, "constants", ""))
            index = np.setdiff1d(index, done, assume_unique=True)
        return [one for one in told if len(one[0])]

    def _by_rule(self, rule: int, rows: pa.RecordBatch, index: Rows, values: Floats) -> Rows:
        """Rows for which every expression of the rule gave a number; none when the columns it reads are not there."""
        some = rows.take(pa.array(index)) if len(index) < rows.num_rows else rows
        given: dict[str, Floats] = {}
        for name, expression in self._rules[rule].items():
            try:
                column = column_of(expression.bind(some.schema), some)
            except BoucleError:
                return index[:0]
            given[name] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        known = np.ones(len(index), bool)
        for numbers in given.values():
            known &= np.isfinite(numbers)
        for output, name in enumerate(self._outputs):
            values[output, index[known]] = given[name][known] if name in given else np.nan
        return index[known]

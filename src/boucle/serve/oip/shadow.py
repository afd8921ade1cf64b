"""Challengers score what the champion answered, beside the requests; differences are counted, nothing is acted on."""

import logging

import numpy as np
from numpy.typing import NDArray

from boucle.errors import BoucleError
from boucle.serve.agreement import Agreement
from boucle.serve.oip.scored import Scored, Version
from boucle.serve.oip.served import Served
from boucle.serve.oip.shelf import Shelf

__all__ = ["Compared", "Shadows"]

log = logging.getLogger("boucle.serve.oip.shadow")

Compared = dict[tuple[str, str, str, str], Agreement]
"""By model, champion, challenger and output: how far they agree on the rows that both could score."""


class Shadows:
    """Scores again what others answered."""

    def __init__(self, shelf: Shelf) -> None:
        self.compared: Compared = {}
        self._shelf = shelf

    def again(self, batch: list[Scored]) -> list[Scored]:
        """What the challengers say of the same rows; nothing where there is no challenger, or of other columns."""
        by_version: dict[Version, list[Scored]] = {}
        for scored in batch:
            if scored.role == "champion":
                by_version.setdefault(scored.of, []).append(scored)
        given: list[Scored] = []
        for of, answered in by_version.items():
            try:
                given += self._of(of, answered)
            except BoucleError as error:
                log.warning("the shadow of %s cannot score: %s", of.name, error)
        return given

    def _of(self, of: Version, answered: list[Scored]) -> list[Scored]:
        shadow = self._shelf.offer(of.name).shadow
        if shadow is None or shadow.version == of.version or shadow.columns != of.columns:
            return []
        if shadow.ready.by_rows:  # the rows are here as float32 only
            return []
        scores = shadow.score(np.concatenate([one.rows for one in answered]))
        self._compare(of, shadow, np.concatenate([one.scores for one in answered]), scores)
        given, begin = [], 0
        for one in answered:
            part = scores[begin : begin + len(one.rows)]
            begin += len(one.rows)
            given.append(Scored(shadow.of, one.id, one.wire, one.at, one.rows, part, one.seconds, "shadow"))
        return given

    def _compare(
        self, of: Version, shadow: Served, first: NDArray[np.float64], second: NDArray[np.float64]
    ) -> None:
        if of.gives != shadow.gives:
            return
        both = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
        for index, output in enumerate(of.gives):
            key = (of.name, of.version, shadow.version, output)
            self.compared.setdefault(key, Agreement()).add(first[both, index], second[both, index])

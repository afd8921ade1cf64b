"""What the compiled witnesses see and vote, beside the same by definition, row by row."""

import numpy as np
import pytest
from numpy.typing import NDArray

from boucle.edge.witnesses import KEPT, LONGEST, SPREADS, WITNESSES, surprise

TRAIN = 120
SPANS = (1, 5, 10, 30, 60, 100)
Wide = NDArray[np.float64]


def surprises(plain: Wide, relative: Wide) -> list[float]:
    values = np.zeros((2, LONGEST + 1))
    spreads, largest = np.zeros((SPREADS, TRAIN)), np.zeros((WITNESSES, KEPT))
    return [
        float(surprise(values, spreads, largest, place, one, two))
        for place, (one, two) in enumerate(zip(plain, relative, strict=True))
    ]


def deviations(rows: Wide, span: int) -> Wide:
    spread = [rows[max(0, place + 1 - span) : place + 1].std() for place in range(len(rows))]
    found: Wide = np.log(np.array(spread) + 0.05)
    return found


def distances(rows: Wide, spreads: dict[int, Wide], place: int) -> list[float]:
    before = rows[max(0, place - TRAIN) : place]
    usual = before.mean() if place else rows[0]
    found = []
    for span in SPANS:
        last = rows[max(0, place + 1 - span) : place + 1]
        apart = last.mean() - usual
        found += [max(apart, 0), max(-apart, 0), abs(apart)]
        earlier = rows[max(0, place + 1 - 2 * span) : place + 1 - span]
        found.append(abs(last.mean() - earlier.mean()) if place >= 2 * span else 0.0)
        if span > 1:
            near = rows[max(0, place - span) : place]
            found.append(abs(rows[place] - near.mean()) if place else 0.0)
        if span >= 10:
            spread = spreads[span]
            wider = spread[place] - spread[max(0, place - TRAIN) : place].mean() if place else 0.0
            changes = np.abs(np.diff(rows, prepend=rows[0]))[max(0, place + 1 - span) : place + 1]
            found += [max(wider, 0), max(-wider, 0), changes.mean()]
    return [float(one) for one in found]


def test_surprise_is_what_its_definition_says() -> None:
    draw = np.random.default_rng(1)
    plain = draw.normal(0, 1, 330).round(1)  # rounded: ties count as at least as large
    plain[250:] += 2
    relative = draw.normal(0, 1, 330)
    told = surprises(plain, relative)
    scales = [(one, {span: deviations(one, span) for span in SPANS[2:]}) for one in (plain, relative)]
    seen = np.array(
        [[found for scale in scales for found in distances(*scale, place)] for place in range(len(plain))]
    )
    assert seen.shape[1] == WITNESSES
    for place in range(len(plain)):
        larger = (seen[:place] >= seen[place] - 1e-9).sum(axis=0)
        votes = np.log10((1 + place) / (1 + larger))
        votes[(larger >= KEPT) & (place > KEPT)] = 0.0
        assert told[place] == pytest.approx(np.sort(votes)[-12:].mean(), abs=0.02)


def test_a_constant_surprises_nobody_until_it_moves() -> None:
    rows = np.zeros(400)
    rows[390] = 1.0
    told = surprises(rows, rows)
    assert max(told[:390]) == 0.0
    assert told[390] == pytest.approx(np.log10(391))

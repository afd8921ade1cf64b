"""How rules came out is kept for those who look without the loop: last outcome, course, over restarts."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from boucle.loop.outcomes import OutcomeBook, read_outcomes
from boucle.loop.view import QualityView


def view(checked: int, failed: int, state: str = "kept") -> QualityView:
    return QualityView("orders", "few", "warning", state, checked, failed)


def test_a_course_goes_on_after_a_restart_and_stays_short(tmp_path: Path) -> None:
    assert read_outcomes(tmp_path) == []
    OutcomeBook(tmp_path).add(1, [])
    assert read_outcomes(tmp_path) == [], "nothing to say is not written"
    book = OutcomeBook(tmp_path)
    for at in range(200):
        book.add(at, [view(10 * at, at)])
    book = OutcomeBook(tmp_path)
    book.add(200, [view(2000, 203, "broken")])
    (one,) = read_outcomes(tmp_path)
    assert one.last.state == "broken"
    assert one.recent == 4
    assert len(one.course) <= 121
    assert (one.course[0][0], one.course[-1]) == (0, (200, 2000, 203))
    assert [point[0] for point in one.course] == sorted({point[0] for point in one.course})


def test_a_rule_counted_anew_begins_a_new_course_and_one_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    book = OutcomeBook(tmp_path)
    book.add(1, [view(100, 5), QualityView("orders", "old", "info", "kept", 1, 0)])
    book.add(2, [view(10, 0)])
    (one,) = read_outcomes(tmp_path)
    assert one.course == [(2, 10, 0)]
    assert one.recent == 0


@given(st.binary(max_size=60))
def test_a_file_that_is_none_costs_the_course_alone(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        (run / "quality").mkdir()
        (run / "quality" / "outcomes.json").write_bytes(text)
        read_outcomes(run)
        OutcomeBook(run).add(1, [view(1, 0)])
        assert len(read_outcomes(run)) == 1

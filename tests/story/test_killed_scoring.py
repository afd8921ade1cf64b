"""A whole product with champion, shadow, canary, Performance and Explain, killed at any moment, while its roles change.

Another process promotes and rolls back beside it, and is killed too. Many more kills: `python -m bench.soak_scoring`.
"""

from pathlib import Path

from boucle.models.registry import registry_of
from tests.story.killing_scored import kill, killer

KILLS = 4


def test_killed_anywhere_each_event_is_scored_once_by_the_version_of_its_row(tmp_path: Path) -> None:
    with killer() as by:
        one = kill(by, tmp_path, seed=2, rows=300, kills=KILLS)
    assert one.sound, one
    assert one.kills.total() == KILLS
    assert not any(moment.startswith("ended") for moment in one.kills)
    assert one.judged.switches > 1
    roles = registry_of(tmp_path / "product").roles("fraud")
    assert roles.generation == len(roles.history)

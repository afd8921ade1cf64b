"""Trouble with a table is told once when it begins and once when it is over."""

import msgspec

from boucle.event import Event
from boucle.loop.metrics import exposition
from boucle.loop.plan import build_plan
from boucle.loop.watch import Watch
from boucle.product.project import load_project
from boucle.testing.clock import ManualClock
from tests.cli.command import PRESS
from tests.web.sample import SampleLoop, StillClock


def test_a_table_in_trouble_is_an_event_and_so_is_its_end() -> None:
    plan = build_plan(load_project(PRESS))
    told: list[Event] = []
    troubles: dict[tuple[str, str], str] = {}
    watch = Watch(plan, {}, {}, ManualClock(10**18), told.append, lambda: troubles)
    watch.look()
    troubles[("machine_hours", "held")] = "null-speed: 3 rows (run/refine/held/7)"
    troubles[("features", "write")] = "B502 a column changed its type"
    watch.look()
    watch.look()
    assert [(one.kind, one.subject) for one in told] == [
        ("batch_held", "table machine_hours"),
        ("table_behind", "table features"),
    ]
    assert all("run/refine/held/7" in told[0].says[language] for language in ("en", "fr"))
    del troubles[("machine_hours", "held")]
    watch.look()
    assert (told[-1].kind, told[-1].severity) == ("batch_passed", "info")
    assert len(told) == 3


def test_it_is_on_metrics_while_it_lasts() -> None:
    view = SampleLoop(StillClock(5.0)).view()
    assert "boucle_table_trouble{" not in exposition(view).decode()
    view = msgspec.structs.replace(view, troubles={("machine_hours", "held"): "null-speed"})
    assert 'boucle_table_trouble{table="machine_hours",what="held"} 1.0' in exposition(view).decode()

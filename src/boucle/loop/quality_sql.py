"""Rules of kind `sql` of a stream: asked of the table of the lake that keeps it, beside the path.

A query asks all rows at once; no state of Blocks can answer it. So it is asked again when the table has another
version, at most once a minute, by one thread in little memory.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import structs

from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.duck import DuckError, connection
from boucle.lake.whole import Lake
from boucle.product.document import LoopDocument
from boucle.product.rules import Rule
from boucle.quality.relation import Relation
from boucle.quality.table_check import check_table
from boucle.quality.verdict import Outcome
from boucle.refine.inputs import show

__all__ = ["TableQuestions", "table_behind"]

_MEMORY = "256MB"


def table_behind(loop: LoopDocument, stream: str, wanted: str) -> str:
    """The table of the lake that keeps a stream; the one called `wanted` when there are several, empty for none."""
    found = [name for name, spec in loop.tables.items() if spec.from_ == stream and not spec.to]
    return wanted if wanted in found else next(iter(found), "")


class TableQuestions:
    """What the queries of each watched table say. One thread asks and reads."""

    def __init__(
        self, loop: LoopDocument, lake: str, watched: Mapping[str, tuple[str, Sequence[Rule]]]
    ) -> None:
        """`watched`: schema object → its stream and rules."""
        self._lake = Lake(lake) if lake else None
        self._asked = {
            name: (table_behind(loop, stream, name), [rule for rule in rules if rule.kind == "sql"])
            for name, (stream, rules) in watched.items()
        }
        self._versions: dict[str, int] = {}
        self._said: dict[tuple[str, str], Outcome] = {}
        self._why: dict[str, str] = {}

    def ask(self, now: Nanos) -> None:
        """Ask the tables that have changed."""
        for name, (table, rules) in self._asked.items():
            if not rules or not table or self._lake is None:
                continue
            try:
                found = self._lake.find(table)
                if self._versions.get(name) != found.version:
                    self._ask(name, found, rules, now)
                    self._versions[name] = found.version
            except (BoucleError, DuckError) as error:  # not there yet, or a lake that is away: asked again
                self._why[name] = error.what if isinstance(error, BoucleError) else str(error)

    def _ask(self, name: str, table: LakeTable, rules: Sequence[Rule], now: Nanos) -> None:
        with connection(_MEMORY, threads=1) as duck:
            show(duck, table, table.version, "asked")
            report = check_table(name, rules, Relation("asked"), now=now, show=0, connection=duck)
        self._said |= {(name, one.rule): one for one in report.outcomes}

    def answered(self, outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
        """The same outcomes, those of queries as the table answered last."""
        return tuple(self._answer(one) if one.kind == "sql" else one for one in outcomes)

    def _answer(self, one: Outcome) -> Outcome:
        said = self._said.get((one.table, one.rule))
        return said or structs.replace(one, why=self._why.get(one.table, "no table of the lake was asked"))

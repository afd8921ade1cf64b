"""Joins in event time: IntervalJoin, AsOfJoin, and Enrich with a table or a slowly changing stream.

Both inputs go through one Sequencer, so which of two rows came first to the machine does not matter. A null
(or nan) key matches nothing, as in SQL. Output: `at`, the keys under their left names, the other columns of
the left, those of the right (with `_right` behind a name that is taken), and the times of both rows. Rows are
remembered as long as an event time can still come that matches them. Rows that came after their turn go to
`<join>/late` under the same names, whichever side they are of: `at`, the keys, the columns of both sides (null
where the row's own side has no such column), `late_side` (left or right) and `late_by_ns`.
"""

from boucle.stream.join.as_of import AsOfJoin
from boucle.stream.join.enrich import Enrich
from boucle.stream.join.interval import IntervalJoin

__all__ = ["AsOfJoin", "Enrich", "IntervalJoin"]

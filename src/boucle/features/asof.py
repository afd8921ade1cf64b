"""Joins as of a moment: to each decision the newest row of its entity that was true by then.

Whatever happened after the decision, and whatever was learnt after the cut, has no way in: the first is the law of
the join, the second is filtered before it. Ties (two rows of one entity and moment) are decided by the rows' values,
so that the same rows in another order give the same features.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.features.view import FeatureView, Label
from boucle.lake.duck import DuckError, connection
from boucle.lake.duck import name as quoted

__all__ = ["as_of", "decisions", "nanos", "number"]

_AT, _ROW, _LABEL = "_at", "_row", "_label"


def decisions(
    rows: pa.Table, label: Label, entity: Sequence[str], cut: Nanos, also: Sequence[str] = ()
) -> pa.Table:
    """What can be learnt at a cut: entity, `_at` (nanoseconds), `_label`, and the columns of `also`.

    A decision counts when its answer was known by the cut *and* it is `delay` old by then: where a yes is told sooner
    than a no, the newest decisions would be yes alone. A label of null is no answer. In the order of time, then of all
    columns.
    """
    at = nanos(rows.column(label.time), label.table, label.time)
    known = (
        nanos(rows.column(label.known), label.table, label.known) if label.known else pc.add(at, label.delay)
    )
    answer = number(rows.column(label.column), label.table, label.column)
    columns = {one: rows.column(one) for one in dict.fromkeys([*entity, *also])}
    table = pa.table({**columns, _AT: at, _LABEL: answer, "_known": known})
    usable = pc.and_(pc.less_equal(table["_known"], cut), pc.less_equal(table[_AT], cut - label.delay))
    usable = pc.and_(usable, pc.is_valid(table[_LABEL]))
    table = table.filter(pc.fill_null(usable, fill_value=False)).drop_columns(["_known"])
    return table.sort_by(
        [(_AT, "ascending"), *((one, "ascending") for one in table.column_names if one != _AT)]
    )


def as_of(spine: pa.Table, views: Sequence[tuple[FeatureView, pa.Table]], cut: Nanos) -> pa.Table:
    """The decisions with every view's columns (double, null where nothing was known), in the order of `spine`.

    `spine` has `_at` and each view's entity columns; B625 when an entity column is missing or of another type, or a
    feature is no number.
    """
    made = spine.append_column(_ROW, pa.array(range(spine.num_rows), pa.int64()))
    with connection(threads=1) as duck:
        duck.register("spine", made)
        relation, gained = "spine", []
        for index, (view, rows) in enumerate(views):
            duck.register(f"view{index}", _prepared(view, rows, spine, cut))
            keys = [quoted(one) for one in view.entity]
            order = ", ".join(f"{quoted(one)} DESC NULLS LAST" for one in view.columns)
            # NaN and the last of equal moments: the greatest values win, whatever the order of the rows.
            duck.execute(
                f"CREATE TABLE ready{index} AS SELECT * FROM view{index} "  # noqa: S608
                f"QUALIFY row_number() OVER (PARTITION BY {', '.join(keys)}, {_AT} ORDER BY {order}) = 1"
            )
            same = " AND ".join(f"s.{key} = v.{key}" for key in keys)
            told = ", ".join(_aged(one, view.ttl) for one in view.columns)
            duck.execute(
                f"CREATE TABLE joined{index} AS SELECT s.*, {told} FROM {relation} s "  # noqa: S608
                f"ASOF LEFT JOIN ready{index} v ON {same} AND s.{_AT} >= v.{_AT}"
            )
            relation = f"joined{index}"
            gained += list(view.columns)
        names = ", ".join(quoted(one) for one in [*spine.column_names, *gained])
        try:
            found: pa.Table = duck.sql(f"SELECT {names} FROM {relation} ORDER BY {_ROW}").to_arrow_table()  # noqa: S608
        except DuckError as error:
            raise BoucleError("B625", "the views cannot be joined to the labels", why=str(error)) from error
    return found


def nanos(column: Any, table: str, name: str) -> Any:
    """A column of moments as nanoseconds since 1970 (integers already are); B625 for anything else."""
    kind = column.type
    try:
        if pa.types.is_integer(kind):
            return column.cast(pa.int64())
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return column.cast(pa.timestamp("ns")).cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise BoucleError("B625", f"{table}: a moment of {name} is out of range", why=str(error)) from error
    what = f"{table}: {name} is {kind}, which is no moment"
    raise BoucleError("B625", what, fix="name a column of timestamps, or of nanoseconds since 1970")


def _prepared(view: FeatureView, rows: pa.Table, spine: pa.Table, cut: Nanos) -> pa.Table:
    at = nanos(rows.column(view.time), view.table, view.time)
    columns = {}
    for one in view.entity:
        if one not in spine.column_names:
            what = f"the labels have no column {one!r}, which the view {view.name} goes by"
            raise BoucleError("B625", what, fix="add it to the label's table, or name another entity")
        columns[one] = rows.column(one)
        if columns[one].type != spine.column(one).type:
            try:
                columns[one] = columns[one].cast(spine.column(one).type)
            except pa.ArrowException as error:
                what = f"{one} is {rows.column(one).type} in {view.table}, {spine.column(one).type} in the labels"
                raise BoucleError("B625", what, why=str(error), fix="give both the same type") from error
    for one in view.columns:
        columns[one] = number(rows.column(one), view.table, one)
    table = pa.table({**columns, _AT: at})
    return table.filter(pc.fill_null(pc.less_equal(at, cut), fill_value=False))


def number(column: Any, table: str, name: str) -> Any:
    """A column as doubles (booleans as 0 and 1); B625 for anything that is no number."""
    kind = column.type
    if pa.types.is_boolean(kind):
        return column.cast(pa.int8()).cast(pa.float64())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.float64(), safe=False)
    what = f"{table}: {name} is {kind}, and a model takes numbers"
    raise BoucleError("B625", what, fix="make a number of it in the table (a code, a share, a count)")


def _aged(column: str, ttl: Nanos | None) -> str:
    it = quoted(column)
    return f"v.{it}" if ttl is None else f"CASE WHEN s.{_AT} - v.{_AT} <= {ttl} THEN v.{it} END AS {it}"

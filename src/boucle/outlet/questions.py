"""A question of a client made into one DuckDB can answer: rewritten, its parameters given types, its columns known."""

from collections.abc import Sequence

from boucle.lake.sql import Bound, SqlSession
from boucle.outlet.answering import Prepared
from boucle.outlet.catalogue import Catalogue
from boucle.outlet.dialect import parameters_cast, rewrite, without_any, without_parameters
from boucle.outlet.pgtype import TEXT, TYPES, duckdb_name, pg_type
from boucle.outlet.refused import Refused

__all__ = ["prepared_question"]

_OPEN = {"UNKNOWN", "ANY", '"NULL"'}
"""What DuckDB calls the type of a parameter that could be anything."""
_UNKNOWN = 705


def prepared_question(
    text: str, kinds: Sequence[int], place: SqlSession, catalogue: Catalogue, user: str
) -> Prepared:
    """A reading statement with its shape; `kinds` are the OIDs the client gave its parameters (0: not said).

    Raises as `SqlSession.bind`, and `Refused` for parameters that are not numbered without gaps.
    """
    sql = rewrite(text, catalogue.names, user)
    if sql != text:
        catalogue.renew()
    given = {number: name for number, oid in enumerate(kinds, 1) if (name := duckdb_name(oid))}
    single, lists = without_any(sql)
    if lists - set(given):
        each = place.bind(parameters_cast(single, given)).parameters
        known = {number: each[number] for number in lists if each[number] not in _OPEN}
        given |= {number: f"{known.get(number, 'VARCHAR')}[]" for number in lists if number not in given}
    sql = parameters_cast(sql, given)
    bound = place.bind(sql)
    if not bound.parameters:
        return Prepared(text, None, sql, bound, ())
    if _OPEN & {*bound.parameters.values(), *bound.types}:
        each = {number: "VARCHAR" if kind in _OPEN else kind for number, kind in bound.parameters.items()}
        sql = parameters_cast(sql, {number: kind for number, kind in each.items() if number not in given})
        # With casts everywhere DuckDB may still not say: with nulls of those types it does.
        shape = place.bind(without_parameters(sql))
        bound = Bound(shape.names, shape.types, each | given)
    return Prepared(text, None, sql, bound, _parameter_types(bound, kinds))


def _parameter_types(bound: Bound, kinds: Sequence[int]) -> list[int]:
    count = max(bound.parameters)
    if count > len(bound.parameters):
        raise Refused("B837", "parameters are numbered from $1 without gaps", sqlstate="42P18")
    found = []
    for number in range(1, count + 1):
        declared = kinds[number - 1] if number <= len(kinds) else 0
        told = pg_type(bound.parameters[number]).oid
        found.append(declared if declared in TYPES and declared != _UNKNOWN else told or TEXT)
    return found

"""One client's session: messages in, answers out. After "Message Flow" of PostgreSQL's protocol 3.0.

A statement that fails is told and leaves the session as it was; only bytes that are no protocol, and a client that
is gone, end it. Everything is read-only: there is nothing to commit, a transaction only holds one state of the lake.
"""

import struct
from collections.abc import Sequence
from contextlib import AbstractContextManager

import pyarrow as pa
from msgspec import Struct

from boucle.errors import BoucleError
from boucle.lake.sql import Sql, SqlSession
from boucle.outlet import commands, wire
from boucle.outlet.answering import Portal, Prepared, asked, text_columns
from boucle.outlet.catalogue import Catalogue
from boucle.outlet.channel import Channel
from boucle.outlet.copying import copied, copy_format
from boucle.outlet.dialect import split
from boucle.outlet.interruption import Interruption
from boucle.outlet.parameters import parameter
from boucle.outlet.pgtype import TEXT
from boucle.outlet.questions import prepared_question
from boucle.outlet.refused import Refused, broken_protocol, refusal
from boucle.outlet.settings import DEFAULTS, REPORTED, SessionSettings, startup_settings
from boucle.outlet.uses import Uses

__all__ = ["Limits", "Session"]

_MOST_KEPT = 1_000
"""Prepared statements and portals one session may hold."""


class Limits(Struct, frozen=True):
    """What one endpoint gives its clients."""

    connections: int = 100
    message: int = 16 << 20
    """Bytes of a message."""
    statement: float = 0.0
    """Seconds a statement may take; 0: any time. A session may ask for less."""
    login: float = 30.0
    """Seconds until a client has said who it is."""
    stalled: float = 300.0
    """Seconds a client may leave what is sent to it unread."""


class Session:
    """Serves one client after it has said who it is."""

    def __init__(
        self,
        channel: Channel,
        sql: Sql,
        catalogue: Catalogue,
        user: str,
        limits: Limits,
        startup: dict[str, str],
        uses: Uses | None = None,
    ) -> None:
        self._uses = uses
        self._channel, self._sql, self._catalogue, self._user, self._limits = (
            channel,
            sql,
            catalogue,
            user,
            limits,
        )
        self._settings = SessionSettings(user)
        self._place = sql.session()
        self._set_here: list[tuple[str, str]] = [("search_path", ",".join(self._known_zones()))]
        self._apply(self._place)
        self._statements: dict[str, Prepared] = {}
        self._portals: dict[str, Portal] = {}
        self._cursors: dict[str, Portal] = {}
        self._status = "I"
        self._skipping = False
        self._text = ""
        self._before_local: list[tuple[str, str]] = []
        self.work = Interruption()
        """What it does now, for those who may stop it."""
        for name, value in startup_settings(startup):
            if name.lower() == "timezone":
                self._zone(value)
            else:
                self._set(
                    name, [part.strip() for part in value.split(",")] if name == "search_path" else [value]
                )
        self._settings.begun()

    def _known_zones(self) -> list[str]:
        return list(self._catalogue.visible)

    # --- the loop

    def serve(self) -> None:
        """Tell the settings, then read messages and answer them; returns when the client says goodbye.

        Raises `Refused` when the client does not speak the protocol, and `Gone` when it went away.
        """
        for name in REPORTED:
            self._channel.send(wire.parameter_status(name, self._settings.get(name)))
        self._channel.send(wire.ready(self._status))
        while True:
            kind, data = self._channel.message()
            if kind == "X":
                return
            if self._skipping and kind != "S":
                continue
            try:
                self._take(wire.decode(kind, data))
            except BoucleError as error:
                told = refusal(error, self._text)
                if told.sqlstate == "08P01":
                    raise told from error
                self._failed(told, extended=kind != "Q")
            except pa.ArrowException as error:  # an answer that cannot be written in this format
                said = Refused(
                    "B837",
                    "the answer cannot be written",
                    sqlstate="XX000",
                    why=str(error),
                    fix="cast its columns to text",
                )
                self._failed(said, extended=kind != "Q")

    def _failed(self, error: Refused, extended: bool) -> None:
        self._place.drop()
        self._channel.send(wire.failed(self.work.said() or error))
        if self._status == "T":
            self._status = "E"
        if extended:
            self._skipping = True
        else:
            self._channel.send(wire.ready(self._status))

    def _take(self, message: wire.Message) -> None:
        if isinstance(message, wire.Query):
            self._query(message.text)
        elif isinstance(message, wire.Parse):
            self._parse(message)
        elif isinstance(message, wire.Bind):
            self._bind(message)
        elif isinstance(message, wire.Describe):
            self._describe(message)
        elif isinstance(message, wire.Execute):
            self._execute(message)
        elif isinstance(message, wire.Close):
            self._forget(message.kind, message.name)
            self._channel.send(wire.message("3"))
        elif isinstance(message, wire.Plain):
            self._plain(message.kind)
        else:
            raise broken_protocol("a password nobody asked for")

    def _plain(self, kind: str) -> None:
        if kind == "S":
            self._skipping = False
            if self._status == "I":
                self._drop_portals()
            self._channel.send(wire.ready(self._status))
        elif kind == "H":
            self._channel.flush()
        elif kind == "F":
            raise Refused("B835", "function calls are not served", sqlstate="0A000", fix="use SELECT")

    # --- simple queries

    def _query(self, text: str) -> None:
        self._text = text
        statements = split(text)
        if not statements:
            self._channel.send(wire.message("I"))
        for statement in statements:
            self._text = statement
            self._forget("P", "")
            portal = Portal(self._prepared(statement, ()), (), ())
            if portal.columns and portal.statement.command is None:
                self._channel.send(wire.row_description(portal.columns))
            self._answer(portal, 0, described=True)
        self._channel.send(wire.ready(self._status))

    # --- extended queries

    def _parse(self, message: wire.Parse) -> None:
        self._text = message.text
        statements = split(message.text)
        if len(statements) > 1:
            raise Refused(
                "B835",
                "a prepared statement is one statement",
                sqlstate="42601",
                fix="prepare them one by one",
            )
        if message.name and message.name in self._statements:
            raise Refused("B838", f'there is a statement "{message.name}" already', sqlstate="42P05")
        if len(self._statements) >= _MOST_KEPT:
            raise Refused(
                "B838", f"{_MOST_KEPT} statements are kept already", sqlstate="53400", fix="close some"
            )
        self._statements.pop(message.name, None)
        prepared = (
            self._prepared(statements[0], message.kinds) if statements else Prepared("", None, "", None, ())
        )
        self._statements[message.name] = prepared
        self._channel.send(wire.message("1"))

    def _bind(self, message: wire.Bind) -> None:
        statement = self._statement(message.statement)
        self._text = statement.text
        if message.portal and message.portal in self._portals:
            raise Refused("B838", f'there is a portal "{message.portal}" already', sqlstate="42P03")
        if len(self._portals) >= _MOST_KEPT:
            raise Refused(
                "B838", f"{_MOST_KEPT} portals are open already", sqlstate="53400", fix="close some"
            )
        wanted = len(statement.parameters)
        if len(message.values) != wanted or len(message.formats) not in {0, 1, wanted}:
            raise Refused("B837", f"{len(message.values)} values for {wanted} parameters", sqlstate="08P01")
        columns = len(statement.bound.names) if statement.bound else 0
        if len(message.results) not in {0, 1, columns} or set(message.results) - {0, 1}:
            raise Refused("B837", f"{len(message.results)} formats for {columns} columns", sqlstate="08P01")
        values = [
            parameter(value, oid, bool(asked(message.formats, index)))
            for index, (value, oid) in enumerate(zip(message.values, statement.parameters, strict=True))
        ]
        self._forget("P", message.portal)
        self._portals[message.portal] = Portal(statement, values, message.results)
        self._channel.send(wire.message("2"))

    def _describe(self, message: wire.Describe) -> None:
        if message.kind == "S":
            statement = self._statement(message.name)
            self._channel.send(wire.parameter_description(statement.parameters))
            columns = self._columns(Portal(statement, (), ()))
        else:
            columns = self._columns(self._portal(message.name))
        self._channel.send(wire.row_description(columns) if columns else wire.message("n"))

    def _columns(self, portal: Portal) -> Sequence[wire.Column]:
        command = portal.statement.command
        if isinstance(command, commands.Show):
            return self._shown(command)[0]
        if isinstance(command, commands.Fetch) and not command.move:
            return self._cursor(command.name).columns
        return portal.columns if command is None else ()

    def _execute(self, message: wire.Execute) -> None:
        portal = self._portal(message.portal)
        self._text = portal.statement.text
        if not self._text:
            self._channel.send(wire.message("I"))
            return
        self._answer(portal, max(0, message.limit), described=False)

    def _statement(self, name: str) -> Prepared:
        if name not in self._statements:
            raise Refused("B838", f'there is no statement "{name}"', sqlstate="26000", fix="prepare it first")
        return self._statements[name]

    def _portal(self, name: str) -> Portal:
        found = self._portals.get(name) or self._cursors.get(name)
        if found is None:
            raise Refused("B838", f'there is no portal "{name}"', sqlstate="34000", fix="bind it first")
        return found

    def _forget(self, kind: str, name: str) -> None:
        if kind == "S":
            self._statements.pop(name, None)
        elif (portal := self._portals.pop(name, None)) is not None:
            portal.close()

    def _drop_portals(self) -> None:
        for portal in (*self._portals.values(), *(one for one in self._cursors.values() if not one.held)):
            portal.close()
        self._portals.clear()
        self._cursors = {name: one for name, one in self._cursors.items() if one.held}

    # --- statements

    def _check_alive(self, command: commands.Command | None) -> None:
        """In a failed transaction only its end is listened to."""
        if self._status == "E" and not isinstance(command, commands.End | commands.Savepoint):
            raise Refused(
                "B836",
                "the transaction failed, nothing is answered in it any more",
                sqlstate="25P02",
                fix="ROLLBACK",
            )

    def _prepared(self, text: str, kinds: Sequence[int]) -> Prepared:
        command = commands.command(text)
        self._check_alive(command)
        if isinstance(command, commands.CopyOut | commands.Declare):
            inner = self._question(command.query, kinds)
            return Prepared(text, command, inner.sql, inner.bound, inner.parameters)
        if command is not None:
            return Prepared(text, command, "", None, ())
        return self._question(text, kinds)

    def _question(self, text: str, kinds: Sequence[int]) -> Prepared:
        return prepared_question(text, kinds, self._place, self._catalogue, self._user)

    def _answer(self, portal: Portal, limit: int, *, described: bool) -> None:
        command = portal.statement.command
        self._check_alive(command)
        if isinstance(command, commands.CopyOut):
            self._copy(portal, command)
        elif isinstance(command, commands.Fetch):
            self._fetch(command, described)
        elif command is not None:
            self._command(portal, command, described)
        else:
            self._rows(portal, limit, _tag(portal.statement.text))

    def _working(self, place: SqlSession) -> AbstractContextManager[None]:
        seconds = min((one for one in (self._limits.statement, self._settings.timeout) if one), default=0.0)
        return self.work.working(place, seconds)

    def _rows(self, portal: Portal, limit: int, tag: str) -> None:
        place = portal.place or self._place
        if limit and portal.place is None and not portal.done:
            place = portal.place = self._own_place()
        count = 0
        if not portal.done:
            with self._working(place):
                portal.open(place)
                for rows, data in portal.rows(limit):
                    self.work.check()
                    self._channel.send(data)
                    count += rows
        if portal.done:
            if self._uses is not None:
                self._uses.statement(portal.statement.text, self._user, "sql", count)
            self._channel.send(wire.complete(f"{tag} {count}" if tag != "EXPLAIN" else tag))
        else:
            self._channel.send(wire.message("s"))

    def _own_place(self) -> SqlSession:
        """A reader beside the session's, for an answer that other questions come in between of."""
        place = self._sql.session()
        self._apply(place)
        return place

    def _apply(self, place: SqlSession) -> None:
        for name, value in self._set_here:
            place.set(name, value)

    def _copy(self, portal: Portal, command: commands.CopyOut) -> None:
        form = copy_format(command.options)
        source = Portal(portal.statement, portal.values, (int(form.format == "binary"),))
        with self._working(self._place):
            source.open(self._place)
            count = 0
            for rows, data in copied(source, form):
                self.work.check()
                self._channel.send(data)
                count += rows
        self._channel.send(wire.message("c"))
        self._channel.send(wire.complete(f"COPY {count}"))

    # --- commands

    def _command(self, portal: Portal, command: commands.Command, described: bool) -> None:  # noqa: C901, PLR0912
        if isinstance(command, commands.Begin):
            self._begin()
            tag = "BEGIN"
        elif isinstance(command, commands.End):
            tag = self._end(command.tag)
        elif isinstance(command, commands.Savepoint):
            if command.tag == "ROLLBACK" and self._status == "E":
                self._status = "T"
                self._place.end()
                self._place.begin()
            tag = command.tag
        elif isinstance(command, commands.SetTo):
            if command.local:
                self._before_local.append((command.name, self._settings.get(command.name)))
            self._set(command.name, command.values)
            tag = "SET"
        elif isinstance(command, commands.Reset):
            self._reset(command.name)
            tag = "RESET"
        elif isinstance(command, commands.Show):
            columns, rows = self._shown(command)
            if not described:
                self._given(rows)
            else:
                self._channel.send(wire.row_description(columns))
                self._given(rows)
            tag = "SHOW"
        elif isinstance(command, commands.Discard):
            self._reset("")
            self._statements.clear()
            self._drop_portals()
            tag = command.tag
        elif isinstance(command, commands.Deallocate):
            tag = self._deallocate(command.name)
        elif isinstance(command, commands.Declare):
            self._declare(portal, command)
            tag = "DECLARE CURSOR"
        elif isinstance(command, commands.CloseCursor):
            tag = self._close_cursor(command.name)
        else:
            tag = command.tag if isinstance(command, commands.Nothing) else ""
        self._channel.send(wire.complete(tag))

    def _begin(self) -> None:
        if self._status != "I":
            self._channel.send(wire.notice("there is a transaction already", "25001"))
            return
        self._place.begin()
        self._status = "T"

    def _end(self, tag: str) -> str:
        if self._status == "I":
            self._channel.send(wire.notice("there is no transaction", "25P01"))
        else:
            self._place.end()
            tag = "ROLLBACK" if self._status == "E" else tag
        self._status = "I"
        for name, value in reversed(self._before_local):
            self._set(name, value.split(", ") if name == "search_path" else [value])
        self._before_local.clear()
        self._drop_portals()
        return tag

    def _set(self, name: str, values: Sequence[str]) -> None:
        if name.lower() == "timezone":
            name, values = "TimeZone", [self._zone(values[0] if values else "default")]
        elif name.lower() == "search_path":
            self._path(values)
        proper = self._settings.set(name, values)
        if proper in REPORTED:
            self._channel.send(wire.parameter_status(proper, self._settings.get(proper)))

    def _zone(self, value: str) -> str:
        zone = "UTC" if value.lower() in {"default", "local", "utc", "gmt", "z"} else value
        try:
            self._place.set("timezone", zone)
        except BoucleError as error:
            raise Refused(
                "B835", f"there is no time zone {zone!r}", sqlstate="22023", why=error.why
            ) from error
        self._set_here = [*(one for one in self._set_here if one[0] != "timezone"), ("timezone", zone)]
        self._settings.values["TimeZone"] = zone
        return zone

    def _path(self, values: Sequence[str]) -> None:
        known = {zone for zone, *_ in self._sql.renew()} | set(self._known_zones())
        wanted = [value for value in values if value in known] or self._known_zones()
        path = ",".join(f'"{zone}"' for zone in wanted)
        self._place.set("search_path", path)
        self._set_here = [*(one for one in self._set_here if one[0] != "search_path"), ("search_path", path)]

    def _reset(self, name: str) -> None:
        if name:
            self._set(name, ["default"] if name != "search_path" else self._known_zones())
            return
        self._settings.reset()
        self._zone(self._settings.get("TimeZone"))
        self._path(self._settings.get("search_path").split(", "))

    def _shown(self, command: commands.Show) -> tuple[Sequence[wire.Column], list[tuple[str, ...]]]:
        if command.name == "all":
            known: list[tuple[str, ...]] = [
                (name, self._settings.get(name), "") for name in sorted(DEFAULTS, key=str.lower)
            ]
            return text_columns([("name", TEXT), ("setting", TEXT), ("description", TEXT)]), known
        name = self._settings.name(command.name)
        return text_columns([(name, TEXT)]), [(self._settings.get(name),)]

    def _given(self, rows: list[tuple[str, ...]]) -> None:
        for row in rows:
            parts = [struct.pack(">i", len(value.encode())) + value.encode() for value in row]
            self._channel.send(wire.message("D", struct.pack(">H", len(row)) + b"".join(parts)))

    def _deallocate(self, name: str) -> str:
        if not name:
            self._statements.clear()
            return "DEALLOCATE ALL"
        self._statement(name)
        self._forget("S", name)
        return "DEALLOCATE"

    # --- cursors

    def _declare(self, portal: Portal, command: commands.Declare) -> None:
        if self._status != "T" and not command.hold:
            raise Refused(
                "B838",
                "a cursor lives in a transaction",
                sqlstate="25P01",
                fix="BEGIN, or DECLARE … WITH HOLD",
            )
        if command.name in self._cursors:
            raise Refused("B838", f'there is a cursor "{command.name}" already', sqlstate="42P03")
        if len(self._cursors) >= _MOST_KEPT:
            raise Refused(
                "B838", f"{_MOST_KEPT} cursors are open already", sqlstate="53400", fix="close some"
            )
        question = Prepared(command.query, None, portal.statement.sql, portal.statement.bound, ())
        cursor = Portal(question, portal.values, (int(command.binary),), self._own_place())
        cursor.held = command.hold
        self._cursors[command.name] = cursor

    def _cursor(self, name: str) -> Portal:
        if name not in self._cursors:
            raise Refused("B838", f'there is no cursor "{name}"', sqlstate="34000", fix="DECLARE it")
        return self._cursors[name]

    def _fetch(self, command: commands.Fetch, described: bool) -> None:
        cursor = self._cursor(command.name)
        if described and not command.move:
            self._channel.send(wire.row_description(cursor.columns))
        assert cursor.place is not None
        count = 0
        if not cursor.done:
            with self._working(cursor.place):
                cursor.open(cursor.place)
                for rows, data in cursor.rows(command.count):
                    self.work.check()
                    if not command.move:
                        self._channel.send(data)
                    count += rows
        self._channel.send(wire.complete(f"{'MOVE' if command.move else 'FETCH'} {count}"))

    def _close_cursor(self, name: str) -> str:
        if name:
            self._cursor(name).close()
            del self._cursors[name]
            return "CLOSE CURSOR"
        for cursor in self._cursors.values():
            cursor.close()
        self._cursors.clear()
        return "CLOSE CURSOR ALL"

    def close(self) -> None:
        """Give back every reader. Safe to call twice."""
        for portal in (*self._portals.values(), *self._cursors.values()):
            portal.close()
        self._portals.clear()
        self._cursors.clear()
        self._place.close()


def _tag(text: str) -> str:
    return "EXPLAIN" if text.lstrip()[:7].lower() == "explain" else "SELECT"

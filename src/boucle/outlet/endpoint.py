"""The SQL endpoint: PostgreSQL's protocol on a port, a thread for each client.

DuckDB, the encoding of rows and the sockets all give up the interpreter's lock, so threads serve as well as
processes here, and one instance of DuckDB shares memory and processors among all clients.
"""

import logging
import secrets
import socket
import ssl
import struct
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias

from boucle.errors import BoucleError
from boucle.lake.sql import Sql
from boucle.outlet import wire
from boucle.outlet.catalogue import Catalogue
from boucle.outlet.channel import Channel, Gone
from boucle.outlet.notes import TableNote
from boucle.outlet.refused import Refused, broken_protocol, refusal
from boucle.outlet.scram import Exchange
from boucle.outlet.session import Limits, Session
from boucle.outlet.settings import DEFAULTS
from boucle.outlet.users import Users
from boucle.outlet.uses import Uses

__all__ = ["SqlEndpoint", "Tls", "check_exposed", "tls_context"]

log = logging.getLogger("boucle.outlet.endpoint")

Tls: TypeAlias = Literal["off", "allowed", "required"]
_MECHANISM = "SCRAM-SHA-256"
_WATCH_S = 0.05
_ENDS_WITHIN_S = 10.0


def tls_context(certificate: str | Path, key: str | Path) -> ssl.SSLContext:
    """TLS 1.2 or later with the server's certificate; B843 when the files cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise BoucleError(
            "B843",
            "the certificate or its key cannot be used",
            where=f"{certificate}, {key}",
            why=str(error),
            fix="two PEM files that belong together",
        ) from error
    context.set_alpn_protocols(["postgresql", "h2", "http/1.1"])
    return context


def check_exposed(host: str, users: Users | None, encrypted: bool) -> None:
    """Beyond this machine only known users are answered, over TLS (B841)."""
    if host in {"127.0.0.1", "::1", "localhost"}:
        return
    if users is None or not encrypted:
        raise BoucleError(
            "B841",
            f"{host} is open to others: it needs {'users' if users is None else 'TLS'}",
            why="whoever reaches the port could read every table"
            if users is None
            else "passwords and rows would be readable",
            fix="--users FILE and --certificate, --key; or listen on 127.0.0.1",
        )


class SqlEndpoint:
    """Serves the tables of one lake. Port 0 takes a free one; `start` returns when clients can connect.

    Without `users` anybody on this machine may ask. `tls`: `required` refuses clients that do not encrypt.
    """

    def __init__(
        self,
        sql: Sql,
        *,
        host: str = "127.0.0.1",
        port: int = 5433,
        users: Users | None = None,
        certificate: ssl.SSLContext | None = None,
        tls: Tls = "required",
        about: Mapping[str, TableNote] | None = None,
        limits: Limits | None = None,
        uses: Uses | None = None,
    ) -> None:
        self.host, self.port, self._uses = host, port, uses
        self._sql, self._users, self._context = sql, users, certificate
        self._tls: Tls = tls if certificate is not None else "off"
        check_exposed(host, users, self._tls == "required")
        self._limits = limits or Limits()
        self._catalogue = Catalogue(sql, about or {}, DEFAULTS)
        self._lock = threading.Lock()
        self._channels: set[Channel] = set()
        self._sessions: dict[int, tuple[int, Session]] = {}
        self._count = 0
        self._listener: socket.socket | None = None
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Listen. B842 when the port is taken."""
        self._catalogue.renew()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.host, self.port))
        except OSError as error:
            listener.close()
            raise BoucleError(
                "B842",
                f"the SQL endpoint cannot listen on {self.host}:{self.port}",
                why=error.strerror or str(error),
                fix="choose another port, or 0 for a free one",
            ) from error
        listener.listen(128)
        self.port = int(listener.getsockname()[1])
        self._listener = listener
        for name, work in (("boucle-sql", self._accept), ("boucle-sql-watch", self._watch)):
            thread = threading.Thread(target=work, args=(listener,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _accept(self, listener: socket.socket) -> None:
        while not self._ending.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed: the endpoint ends
            threading.Thread(
                target=self._client, args=(connection,), name="boucle-sql-client", daemon=True
            ).start()

    def _watch(self, listener: socket.socket) -> None:
        """Stop statements whose time is up."""
        del listener
        while not self._ending.wait(_WATCH_S):
            now = time.monotonic()
            with self._lock:
                late = [session for _, session in self._sessions.values() if session.work.deadline < now]
            for session in late:
                session.work.interrupt("timeout")

    def _client(self, connection: socket.socket) -> None:
        channel = Channel(connection, self._limits.message)
        with self._lock:
            self._channels.add(channel)
        try:
            channel.patience(self._limits.login)
            startup = self._welcomed(channel)
            if startup is not None:
                self._served(channel, startup)
        except Refused as error:
            self._told(channel, error)
        except BoucleError as error:
            self._told(channel, refusal(error, ""))
        except Gone:
            log.debug("a client went away")
        finally:
            channel.close()
            with self._lock:
                self._channels.discard(channel)

    def _told(self, channel: Channel, error: Refused) -> None:
        try:
            channel.send(wire.failed(error, "FATAL"))
            channel.flush()
        except Gone:
            log.debug("a client did not wait to hear why: %s", error)

    def _welcomed(self, channel: Channel) -> wire.Startup | None:
        """The first message that says who comes; None when there was only a Cancel."""
        if self._context is not None and channel.begins_encrypted():
            channel.encrypt(self._context)
        while True:
            first = wire.decode_startup(channel.startup())
            if isinstance(first, wire.Cancel):
                self._cancel(first)
                return None
            if isinstance(first, wire.Startup):
                return first
            if first.by == "tls" and self._context is not None and not channel.encrypted:
                channel.reply(b"S")
                channel.encrypt(self._context)
            else:
                channel.reply(b"N")

    def _cancel(self, asked: wire.Cancel) -> None:
        with self._lock:
            secret, session = self._sessions.get(asked.process, (None, None))
        if session is not None and secret == asked.secret:
            session.work.interrupt("cancel")

    def _served(self, channel: Channel, startup: wire.Startup) -> None:
        if self._tls == "required" and not channel.encrypted:
            raise Refused(
                "B832",
                "this endpoint only speaks encrypted",
                sqlstate="28000",
                fix="connect with sslmode=require",
            )
        if startup.version or any(name.startswith("_pq_.") for name in startup.parameters):
            self._negotiate(channel, startup)
        user = startup.parameters.get("user", "")
        if not user:
            raise Refused("B831", "nobody was named", sqlstate="28000", fix="connect with a user name")
        database = startup.parameters.get("database", "boucle")
        if database not in {"boucle", user}:
            raise Refused(
                "B831", f'there is no database "{database}"', sqlstate="3D000", fix="connect to boucle"
            )
        with self._lock:
            full = len(self._sessions) >= self._limits.connections
        if full:
            raise Refused(
                "B833",
                f"{self._limits.connections} clients are served already",
                sqlstate="53300",
                fix="close some, or try later",
            )
        if self._users is not None:
            self._authenticated(channel, self._users, user)
        channel.send(wire.authentication(0))
        channel.patience(None)
        self._run(channel, user, startup.parameters)

    def _negotiate(self, channel: Channel, startup: wire.Startup) -> None:
        """Say that of protocol 3 only version 0 is spoken, and which options are not known."""
        unknown = [name for name in startup.parameters if name.startswith("_pq_.")]
        body = struct.pack(">II", 0, len(unknown)) + b"".join(map(wire.text, unknown))
        channel.send(wire.message("v", body))

    def _authenticated(self, channel: Channel, users: Users, user: str) -> None:
        channel.send(wire.authentication(10, wire.text(_MECHANISM) + b"\0"))
        exchange = Exchange(users.verifier(user))
        try:
            first = self._password(channel)
            channel.send(wire.authentication(11, exchange.first(_initial(first))))
            proof = exchange.last(self._password(channel))
        except (ValueError, KeyError, struct.error) as error:
            raise broken_protocol(f"this is no SCRAM: {error}") from None
        if proof is None:
            raise Refused(
                "B831",
                f'password authentication failed for user "{user}"',
                sqlstate="28P01",
                fix="check name and password; boucle serve --add-user NAME sets one",
            )
        channel.send(wire.authentication(12, proof))

    def _password(self, channel: Channel) -> bytes:
        kind, data = channel.message()
        if kind != "p" or len(data) > 10_000:
            raise broken_protocol("a password was expected")
        return data

    def _run(self, channel: Channel, user: str, parameters: dict[str, str]) -> None:
        session = Session(channel, self._sql, self._catalogue, user, self._limits, parameters, self._uses)
        secret = secrets.randbelow(1 << 31)
        with self._lock:
            self._count += 1
            process = self._count
            self._sessions[process] = (secret, session)
        channel.stalls_after(self._limits.stalled)
        try:
            channel.send(wire.key_data(process, secret))
            session.serve()
        finally:
            with self._lock:
                del self._sessions[process]
            session.close()

    def stop(self) -> None:
        """Stop what runs, tell the clients, close the port. Safe to call twice."""
        self._ending.set()
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._lock:
            sessions, channels = [one for _, one in self._sessions.values()], list(self._channels)
        for session in sessions:
            session.work.interrupt("shutdown")
        for channel in channels:
            channel.hang_up()
        end = time.monotonic() + _ENDS_WITHIN_S
        while self._channels and time.monotonic() < end:
            time.sleep(0.01)
        for thread in self._threads:
            thread.join(_ENDS_WITHIN_S)
        self._threads.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _initial(data: bytes) -> bytes:
    """What a SASLInitialResponse says to the mechanism it names; ValueError when there is none such."""
    mechanism, _, rest = data.partition(b"\0")
    if mechanism != _MECHANISM.encode() or int.from_bytes(rest[:4], "big") != len(rest) - 4:
        raise ValueError(f"the mechanism is {_MECHANISM}")
    return rest[4:]

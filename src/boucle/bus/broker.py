"""The broker that `boucle demo` brings along: mosquitto when it is installed, else amqtt.

Loopback only, no password: it serves this machine and nothing else. Either is a child process that
ends with us, even when we are killed.
"""

import ctypes
import logging
import os
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Literal, Self

from boucle.bus.embedded import EmbeddedBroker
from boucle.errors import Unavailable

__all__ = ["Broker", "find_mosquitto"]

_log = logging.getLogger("boucle.bus.broker")
_PATIENCE = 10.0  # seconds until it must answer, or end
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, prctl(2)
_CONFIG = """\
listener {port} 127.0.0.1
allow_anonymous true
max_inflight_messages 0
max_queued_messages 0
max_queued_bytes 0
set_tcp_nodelay true
log_type error
log_type warning
"""
# Started by root it would become the user mosquitto, who may not write into our folders; and a
# process that changes its user is no longer told that its parent died.
_AS_ROOT = "user root\n"
_KEEPING = """\
persistence true
persistence_location {folder}/
autosave_on_changes true
autosave_interval 1
"""


def find_mosquitto() -> str | None:
    """The path of mosquitto; Debian puts it where an ordinary user's PATH does not look."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class Broker:
    """A running broker on a loopback port; `stop` it, or use it in a `with`.

    With `keep` (a folder) messages and sessions survive a restart of the broker; without, they
    live in memory. amqtt always forgets.
    """

    def __init__(
        self,
        port: int,
        kind: Literal["mosquitto", "amqtt"],
        process: subprocess.Popen[bytes] | None,
        embedded: EmbeddedBroker | None,
        folder: str,
    ) -> None:
        self.port = port
        self.kind = kind
        self._process = process
        self._embedded = embedded
        self._folder = folder

    @property
    def pid(self) -> int | None:
        """Its process; None once it is stopped."""
        if self._embedded is not None:
            return self._embedded.pid
        return None if self._process is None else self._process.pid

    @classmethod
    def start(
        cls,
        port: int | None = None,
        *,
        kind: Literal["mosquitto", "amqtt"] | None = None,
        keep: Path | None = None,
    ) -> Self:
        """Start on `port` (None: a free one) and return when it answers; Unavailable when it does not."""
        chosen = port or _free_port()
        _check_free(chosen)
        program = find_mosquitto() if kind != "amqtt" else None
        if program is None:
            if kind == "mosquitto":
                raise Unavailable("B305", "mosquitto is not installed", fix="apt-get install mosquitto")
            return cls(chosen, "amqtt", None, EmbeddedBroker(chosen), "")
        folder = tempfile.mkdtemp(prefix="boucle-broker-")
        config = Path(folder) / "mosquitto.conf"
        text = _CONFIG.format(port=chosen) + (_keeping(keep) if keep else "")
        config.write_text(text + (_AS_ROOT if os.geteuid() == 0 else ""))
        process = _keep_running([program, "-c", str(config)], Path(folder) / "log")
        broker = cls(chosen, "mosquitto", process, None, folder)
        broker._wait_until_it_answers()
        return broker

    def stop(self) -> None:
        """End it and wait until its port is free again. Safe to call twice."""
        if self._embedded is not None:
            self._embedded.stop()
            self._embedded = None
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        said = (Path(self._folder) / "log").read_text(errors="replace").strip()
        where = f"127.0.0.1:{self.port}"
        self.stop()
        fix = "choose another port: something else may listen there"
        raise Unavailable("B306", "mosquitto did not start", where=where, why=said, fix=fix)


def _keep_running(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start it from a thread that lives as long as it does: Linux counts the end of the starting
    thread as the death of the parent.
    """
    started: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()

    def keep() -> None:
        with log.open("wb") as said:
            process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                preexec_fn=_end_with_parent,  # noqa: PLW1509
            )
        started.put(process)
        process.wait()

    threading.Thread(target=keep, name="mosquitto", daemon=True).start()
    return started.get(timeout=_PATIENCE)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            where = f"127.0.0.1:{port}"
            fix = "stop what listens there, or choose another port"
            raise Unavailable(
                "B306", "the broker cannot have this port", where=where, why=str(error), fix=fix
            ) from error


def _keeping(folder: Path) -> str:
    return _KEEPING.format(folder=folder.resolve())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """In the child, before mosquitto: be told to end when the parent dies, and let Ctrl-C be ours."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
    os.setsid()

"""A Redis of our own on a free port, ended by its process id."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

__all__ = ["Server", "redis_server"]


class Server:
    """Started, stopped and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with what it had when it was stopped."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                with redis.Redis(port=self.port) as client:
                    client.ping()
            except redis.RedisError:
                time.sleep(0.02)
            else:
                return
        pytest.fail("redis-server did not start within 20 s")

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def redis_server(folder: Path) -> Iterator[Server]:
    """A server while the block lasts; skips where there is none on the PATH."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on the PATH: apt-get install redis-server")
    server = Server(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()

"""What tests share: free ports, and a real mosquitto and a real PostgreSQL when this machine has them."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from boucle.bus.broker import Broker, find_mosquitto
from tests.lake.server import PostgresServer, find_postgres

# How long an example takes says something of the machine, not of what is tested; and the suite has its time.
settings.register_profile("suite", deadline=None, max_examples=60)
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def compiled_ahead() -> Iterator[None]:
    """What is compiled at its first use is compiled beside the first tests."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.ahead"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    yield
    process.kill()
    process.wait()


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def free_port() -> int:
    """A loopback port where nothing listens."""
    return unused_port()


@pytest.fixture(scope="session")
def free_ports() -> Callable[[], int]:
    """Loopback ports where nothing listens, one more at each call."""
    return unused_port


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[Broker]:
    """A real mosquitto on a free loopback port, for the whole session."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    with Broker.start(kind="mosquitto") as broker:
        yield broker


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL on a free loopback port, for the whole session."""
    programs = find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with PostgresServer(programs) as server:
        yield server

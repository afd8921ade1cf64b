"""What tests share: free ports, and a real mosquitto when this machine has one."""

import socket
from collections.abc import Callable, Iterator

import pytest

from boucle.bus.broker import Broker, find_mosquitto


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

"""The clock by hand, and what importing the room costs."""

import subprocess
import sys

import pytest

import boucle.testing
from boucle.clock import Clock
from boucle.testing import ManualClock


def test_it_moves_only_when_told() -> None:
    clock: Clock = ManualClock(5)
    assert clock.now() == clock.now() == 5
    clock.sleep(1.5)
    assert clock.now() == 1_500_000_005
    clock.sleep(-1)
    assert clock.now() == 1_500_000_005
    assert clock.speed == 1.0


def test_it_never_goes_back() -> None:
    with pytest.raises(ValueError, match="backwards"):
        ManualClock().advance(-0.1)


def test_every_name_is_there_and_each_is_imported_alone() -> None:
    for name in boucle.testing.__all__:
        assert getattr(boucle.testing, name).__name__ == name
    program = (
        "import sys; from boucle.testing import ManualClock, PressLine, FakePlc, FakeMes; "
        "print([m for m in ('asyncua', 'paho', 'uvicorn', 'starlette') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Pressline"):
        _ = boucle.testing.Pressline

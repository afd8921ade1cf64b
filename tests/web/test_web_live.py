"""The live socket: frames that decode to what was measured, deltas, and a slow reader."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.web.sample import SampleLoop, StillClock
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from boucle.web import PageServer
from boucle.web.frame import Floats, columns, decode, encode, peaks, thinned


def socket(server: PageServer, path: str, **more: str) -> Connection:
    return connect(f"ws://{server.host}:{server.port}{path}", additional_headers=more, proxy=None)


def receive(connection: Connection) -> tuple[dict[str, Any], list[Floats]]:
    frame = connection.recv(timeout=10)
    assert isinstance(frame, bytes)
    return decode(frame)


def test_machine_frames_carry_what_was_measured(server: PageServer, sample: SampleLoop) -> None:
    with socket(server, "/live/press-2?width=2000") as connection:
        header, arrays = receive(connection)
    truth = sample.live("press-2")
    assert truth is not None
    (machine,) = header["machines"]
    kinds = [(plot["kind"], plot["name"]) for plot in machine["plots"]]
    assert kinds[:2] == [("waveform", "vib_x"), ("spectrum", "vib_x")]
    assert machine["plots"][0]["ms"] == 100.0
    np.testing.assert_array_equal(arrays[0], truth.signals[0].waveform)
    np.testing.assert_array_equal(arrays[1], truth.signals[0].spectrum)
    place = 6 + 2 * [name for kind, name in kinds if kind == "trend"].index("velocity")
    np.testing.assert_array_equal(arrays[place], truth.trends["velocity"][0])
    np.testing.assert_array_equal(arrays[place + 1], truth.trends["velocity"][1])


def test_line_frames_follow_the_accused_sensor(server: PageServer) -> None:
    with socket(server, "/live?lang=fr") as connection:
        header, _ = receive(connection)
    machines = {machine["id"]: machine for machine in header["machines"]}
    assert list(machines) == ["press-1", "press-2", "press-3"]
    plots = machines["press-3"]["plots"]
    assert [(plot["kind"], plot["name"]) for plot in plots] == [("spectrum", "vib_x"), ("trend", "rms_x")]
    assert plots[1]["label"] == "Vibration x, eff."


def test_what_has_not_changed_is_not_sent_again(server: PageServer, sample: SampleLoop) -> None:
    with socket(server, "/live/press-1") as connection:
        first, _ = receive(connection)
        connection.send("0")
        second, arrays = receive(connection)
        assert first["seq"] == 0
        assert second["seq"] == 1
        assert second["machines"][0]["plots"] == []
        assert arrays == []
        assert isinstance(sample.clock, StillClock)
        sample.clock.seconds += 1
        for number in range(1, 10):
            connection.send(str(number))
            later, _ = receive(connection)
            if later["machines"][0]["plots"]:
                return
    pytest.fail("a new second brought no new plots")


def test_a_reader_that_does_not_acknowledge_gets_three_frames_then_only_the_newest(
    server: PageServer, sample: SampleLoop
) -> None:
    with socket(server, "/live/press-1") as connection:
        for _ in range(3):
            receive(connection)
        with pytest.raises(TimeoutError):
            connection.recv(timeout=0.5)
        assert isinstance(sample.clock, StillClock)
        sample.clock.seconds = 200.0
        connection.send("2")
        header, _ = receive(connection)
        assert header["seq"] == 3
        assert header["at"] == sample.clock.now() / 1e9


def test_strangers_and_nonsense_are_sent_away(server: PageServer) -> None:
    with socket(server, "/live/press-9") as connection:
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=10)
        assert connection.close_code == 4404
    with pytest.raises(InvalidStatus):
        socket(server, "/live", Origin="https://evil.example")
    with socket(server, "/live") as connection:
        connection.send("not a number")
        with pytest.raises(ConnectionClosed):  # a frame or two may have been on their way
            [connection.recv(timeout=10) for _ in range(5)]


def test_an_empty_loop_sends_frames_too(server: PageServer, sample: SampleLoop) -> None:
    sample.story = "empty"
    with socket(server, "/live") as connection:
        header, arrays = receive(connection)
    assert len(header["machines"]) == 3
    assert arrays == []


samples = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=400).map(
    lambda values: np.array(values, dtype=np.float32)
)


@given(samples, st.integers(1, 100))
def test_no_peak_is_lost_however_narrow_the_screen(values: Floats, width: int) -> None:
    shown, pairs = columns(values, width)
    assert len(shown) <= 2 * width
    assert shown.max() == values.max()
    assert shown.min() == values.min()
    assert pairs == (len(values) > 2 * width)
    lines, step = peaks(values, width)
    assert len(lines) <= width
    assert lines.max() == values.max()
    assert (len(lines) - 1) * step < len(values)
    ago, trend = thinned(np.arange(len(values), 0, -1, dtype=np.float32), values, width)
    assert len(ago) == len(trend) <= 2 * width
    assert trend.max() == values.max()
    assert bool((np.diff(ago) <= 0).all())


@given(st.lists(samples, max_size=5), st.text(max_size=20))
def test_a_frame_decodes_to_what_was_encoded(arrays: list[Floats], name: str) -> None:
    plots = [{"kind": "waveform", "name": name, "n": len(array)} for array in arrays]
    header = {"v": 1, "machines": [{"id": name, "plots": plots}]}
    found, values = decode(encode(header, arrays))
    assert found == header
    for sent, got in zip(arrays, values, strict=True):
        np.testing.assert_array_equal(sent, got)

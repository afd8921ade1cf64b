"""The live WebSocket: what moves on the screen, at most ten times a second, never queued.

The page acknowledges each frame with its number. Three frames on their way without an
acknowledgement: nothing more is sent until one comes, and then the newest picture is. A slow
network or a sleeping tab therefore sees fewer frames, never old ones, and costs no memory here.
"""

import math
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from boucle.loop.view import Live, LiveSignal, LoopView, MachineView, Observable
from boucle.web.frame import Floats, columns, encode, peaks, thinned
from boucle.web.speech import LANGUAGES, Speech

__all__ = ["LiveFeed"]

IN_FLIGHT = 3
MACHINE_PERIOD_S = 0.1
LINE_PERIOD_S = 0.2
NARROWEST, WIDEST = 80, 4000


class LiveFeed:
    """Serves `/live` (all machines, a trend and a spectrum each) and `/live/{machine}` (everything).

    Query: `width` (pixels of a plot, default 600), `lang`.
    """

    def __init__(self, loop: Observable) -> None:
        self.loop = loop
        self._pictures: dict[str, tuple[float, Live | None]] = {}

    async def serve(self, websocket: WebSocket) -> None:
        """One connection, from accept to close; an unknown machine is refused (close code 4404)."""
        machine = websocket.path_params.get("machine")
        await websocket.accept()
        if machine is not None and await self.picture(machine) is None:
            await websocket.close(4404, f"no machine {machine}")
            return
        flow = Flow(websocket)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flow.listen, tasks.cancel_scope)
            tasks.start_soon(self.feed, flow, machine, tasks.cancel_scope)

    async def feed(self, flow: "Flow", machine: str | None, scope: anyio.CancelScope) -> None:
        """Send a frame each period, or as soon as the page has caught up."""
        period = LINE_PERIOD_S if machine is None else MACHINE_PERIOD_S
        cut = Cut(flow.websocket)
        try:
            while True:
                begun = anyio.current_time()
                await flow.ready()
                view = await anyio.to_thread.run_sync(self.loop.view)
                cut.open(flow.seq, view)
                for shown in view.machines:
                    if machine is None or shown.id == machine:
                        cut.add(shown, await self.picture(shown.id), whole=machine is not None)
                await flow.send(cut.close())
                await anyio.sleep(max(0.0, period - (anyio.current_time() - begun)))
        except WebSocketDisconnect:
            scope.cancel()

    async def picture(self, machine: str) -> Live | None:
        """The live picture of a machine, shared by all who ask within half a period."""
        now = anyio.current_time()
        taken, live = self._pictures.get(machine, (-math.inf, None))
        if now - taken > MACHINE_PERIOD_S / 2:
            live = await anyio.to_thread.run_sync(self.loop.live, machine)
            if live is None:
                self._pictures.pop(machine, None)
            else:
                self._pictures[machine] = (now, live)
        return live


class Flow:
    """The frames of one connection, and how many of them the page has not yet acknowledged."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.seq = 0
        self._seen = 0
        self._moved = anyio.Event()

    async def ready(self) -> None:
        """Return when the page has room for a frame."""
        while self.seq - self._seen >= IN_FLIGHT:
            self._moved = anyio.Event()
            await self._moved.wait()

    async def send(self, frame: bytes) -> None:
        """Send one frame and count it."""
        self.seq += 1
        await self.websocket.send_bytes(frame)

    async def listen(self, scope: anyio.CancelScope) -> None:
        """Take acknowledgements until the page goes away; anything else ends the connection."""
        try:
            while True:
                number = int(await self.websocket.receive_text())
                self._seen = min(self.seq, max(self._seen, number + 1))
                self._moved.set()
        except (ValueError, KeyError):
            await self.websocket.close(1003, "only frame numbers are expected")
            scope.cancel()
        except WebSocketDisconnect:
            scope.cancel()


class Cut:
    """What one connection is sent: pictures cut down to its width, less what it already has."""

    def __init__(self, websocket: WebSocket) -> None:
        query = websocket.query_params
        language = query.get("lang", LANGUAGES[0])
        self.speech = Speech(language if language in LANGUAGES else LANGUAGES[0])
        width = query.get("width", "600")
        self.width = min(WIDEST, max(NARROWEST, int(width) if width.isdecimal() else 600))
        self._sent: dict[tuple[str, str, str], Floats] = {}
        self._header: dict[str, Any] = {}
        self._arrays: list[Floats] = []

    def open(self, seq: int, view: LoopView) -> None:
        """Begin a frame."""
        self._header = {"v": 1, "seq": seq, "at": view.at / 1e9, "speed": view.speed, "machines": []}
        self._arrays = []

    def add(self, shown: MachineView, live: Live | None, *, whole: bool) -> None:
        """Add a machine: everything it has, or the one trend and spectrum that tell its state."""
        signals = live.signals if live else ()
        names = tuple(live.trends) if live else ()
        if not whole:
            names = telling(shown, live) if live else ()
            axis = names[0] if names else ""
            signals = tuple(signal for signal in signals if same_axis(signal.sensor, axis))[:1] or signals[:1]
        plots: list[dict[str, Any]] = []
        for signal in signals:
            if whole:
                self._waveform(shown.id, signal, plots)
            self._spectrum(shown.id, signal, plots)
        for name in names:
            if live is not None:
                self._trend(live, name, plots)
        ages = {signal.sensor: finite(signal.age_s) for signal in signals}
        self._header["machines"].append(
            {"id": shown.id, "status": shown.status, "ages": ages, "plots": plots}
        )

    def close(self) -> bytes:
        """The frame."""
        return encode(self._header, self._arrays)

    def _waveform(self, machine: str, signal: LiveSignal, plots: list[dict[str, Any]]) -> None:
        if not self._changed((machine, "waveform", signal.sensor), signal.waveform):
            return
        samples, pairs = columns(signal.waveform, self.width)
        plot = {
            "kind": "waveform",
            "name": signal.sensor,
            "unit": signal.unit,
            "n": len(samples),
            "pairs": pairs,
        }
        plots.append(plot | {"ms": length_ms(signal)})
        self._arrays.append(samples)

    def _spectrum(self, machine: str, signal: LiveSignal, plots: list[dict[str, Any]]) -> None:
        if not self._changed((machine, "spectrum", signal.sensor), signal.spectrum):
            return
        lines, step = peaks(signal.spectrum, self.width)
        label = self.speech("plot.spectrum", sensor=signal.sensor)
        plot = {
            "kind": "spectrum",
            "name": signal.sensor,
            "label": label,
            "unit": signal.unit,
            "n": len(lines),
        }
        plots.append(plot | {"bin_hz": finite(signal.bin_hz * step)})
        self._arrays.append(lines)

    def _trend(self, live: Live, name: str, plots: list[dict[str, Any]]) -> None:
        ago, values = live.trends[name]
        if not self._changed((live.machine, "trend", name), values):
            return
        ago, values = thinned(ago, values, self.width)
        band: tuple[float | None, float | None] = live.bands.get(name, (None, None))
        unit = live.units.get(name, "")
        if name == "health":  # a share of one reads in per cent
            values, unit = values * np.float32(100), "%"
            band = tuple(None if edge is None else edge * 100 for edge in band)  # type: ignore[assignment]
        plots.append(
            {
                "kind": "trend",
                "name": name,
                "label": self.speech.name("value", name),
                "unit": self.speech.unit(unit),
                "n": len(values),
                "low": finite(band[0]),
                "high": finite(band[1]),
            }
        )
        self._arrays += [ago, values]

    def _changed(self, key: tuple[str, str, str], array: Floats) -> bool:
        last = self._sent.get(key)
        if last is not None and np.array_equal(last, array, equal_nan=True):
            return False
        self._sent[key] = array
        return True


def telling(shown: MachineView, live: Live) -> tuple[str, ...]:
    """The trend that tells a machine's state: the accused sensor's r.m.s., else the first r.m.s."""
    rms = [name for name in live.trends if "rms" in name.split("_")]
    accused = [name for name in rms if "/" in shown.subject and same_axis(shown.subject, name)]
    return tuple((accused or rms or list(live.trends))[:1])


def same_axis(sensor: str, name: str) -> bool:
    """Whether `vib_x` (or `press-3/vib_x`) and `rms_x` (or `x_rms`) speak of one axis."""
    return bool({"x", "y", "z"} & set(sensor.rpartition("/")[2].split("_")) & set(name.split("_")))


def length_ms(signal: LiveSignal) -> float | None:
    """How long the waveform is: its rate is twice the spectrum's last frequency. None before a spectrum."""
    rate = 2 * signal.bin_hz * (len(signal.spectrum) - 1)
    return round(1000 * len(signal.waveform) / rate, 1) if rate > 0 else None


def finite(value: float | None) -> float | None:
    """JSON has no NaN: a number that is none is null."""
    return None if value is None or not math.isfinite(value) else round(float(value), 6)

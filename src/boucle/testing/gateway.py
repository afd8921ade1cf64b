"""Plays a simulated line on the plant's network: waveforms over MQTT, slow values into the PLC.

A chunk goes out when the clock reaches the time of its last sample, as a real data acquisition unit can
send it no sooner; with a faster clock it keeps pace, and says so when it cannot. Set-points written into
the PLC reach the presses at the next chunk, and the people's own changes of speed reach the PLC.
"""

import logging
import threading
from typing import Self

from boucle.clock import SECOND, Clock
from boucle.testing.disturbance import Wire
from boucle.testing.line import PressLine, Tick
from boucle.testing.plc import PlcLogic
from boucle.testing.sender import Sender, Sent

__all__ = ["Gateway"]

_LOG = logging.getLogger("boucle.testing.gateway")
_LATE = 1.0  # s of the clock
_SCAN_PHASE = 0.7


class Gateway:
    """Runs `line` against `clock`, sending to the MQTT `broker` (host:port) and scanning into `plc`.

    Where there is no broker the messages wait (`limit` of them), and where there is no PLC the slow values
    go nowhere. The line belongs to the gateway while it runs: only `truth` and `state` may be asked.
    """

    def __init__(
        self,
        line: PressLine,
        clock: Clock,
        broker: str | None = None,
        plc: PlcLogic | None = None,
        *,
        wire: Wire = "arrow",
        limit: int = 20_000,
    ) -> None:
        self.line, self.clock, self.plc, self.wire = line, clock, plc, wire
        self.behind_s = 0.0
        """How late the last chunk went out, in seconds of the clock."""
        self.process_rows = 0
        """Slow values scanned into the PLC so far."""
        self.failure: BaseException | None = None
        """Why the line stopped by itself, if it did."""
        self._sender = None if broker is None else Sender(broker, f"boucle-line-{line.seed}", limit)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._told_late = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def sent(self) -> Sent:
        """How much went to the broker so far."""
        return Sent() if self._sender is None else self._sender.sent

    def state(self) -> str:
        """`connected`, or why not."""
        return "no broker" if self._sender is None else self._sender.state()

    def start(self) -> None:
        """Begin now, on the next full chunk of the clock; returns at once."""
        chunk = round(self.line.scenario.chunk * SECOND)
        if self.line.elapsed == 0:
            self.line.begin(-(-self.clock.now() // chunk) * chunk)
        if self._sender is not None:
            self._sender.start()
        self._thread = threading.Thread(target=self._run, name="line", daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """Stop the presses, but keep sending what was measured. Safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def drain(self, seconds: float) -> bool:
        """Wait until the broker has every message; False when it has not within `seconds` of the wall."""
        return self._sender is None or self._sender.drain(seconds)

    def stop(self) -> None:
        """Stop the presses and disconnect. Safe to call twice; what was not sent is lost."""
        self.pause()
        if self._sender is not None:
            self._sender.stop()

    def step(self) -> Tick:
        """One chunk: set-points in, physics, wait for its time, values out. `start` does this for ever."""
        before = self._take_speeds()
        tick = self.line.step()
        self._give_speeds(before)
        messages = self.line.messages(tick, self.wire)
        self._wait_until(tick.last)
        if self._sender is not None:
            self._sender.give(messages)
        # A PLC's scan and an acquisition unit's block are not in phase. A real PLC publishes in microseconds and
        # a real machine needs no processor for its physics; here both take 15 ms of the computer that also
        # runs the loop, so they come when a loop that keeps its promises has long answered the block.
        self.clock.sleep(self.line.scenario.chunk * _SCAN_PHASE)
        if self.plc is not None:
            rows = tick.process
            columns = (rows.column(name).to_pylist() for name in ("machine", "sensor", "value"))
            times = rows.column("at").cast("int64").to_pylist()
            self.plc.scan(zip(times, *columns, strict=True))
            self.process_rows += rows.num_rows
        return tick

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.step()
        except BaseException as error:
            self.failure = error
            _LOG.exception("the simulated line stopped")
            raise

    def _take_speeds(self) -> dict[str, float]:
        """The PLC's set-points, given to the presses."""
        if self.plc is None:
            return {}
        wanted = {name: float(self.plc.value(name, "speed_setpoint")) for name in self.line.machines}
        for name, speed in wanted.items():
            self.line.set_speed(name, speed)
        return wanted

    def _give_speeds(self, before: dict[str, float]) -> None:
        """Speeds that the scenario's people changed meanwhile, given to the PLC."""
        for name, speed in before.items():
            now = self.line.press(name).setpoint
            if self.plc is not None and now != speed:
                self.plc.set(name, "speed_setpoint", now)

    def _wait_until(self, at: int) -> None:
        remaining = (at - self.clock.now()) / SECOND
        if remaining > 0:
            self.clock.sleep(remaining)
        self.behind_s = max(0.0, (self.clock.now() - at) / SECOND)
        late = self.behind_s > _LATE * max(1.0, self.clock.speed)
        if late and not self._told_late:
            _LOG.warning(
                "the simulated line is %.1f s behind its clock: this computer cannot keep up with speed %g",
                self.behind_s,
                self.clock.speed,
            )
        self._told_late = late

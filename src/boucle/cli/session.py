"""A loop running under a terminal's eyes: page, ticker, progress line, Ctrl-C, the closing summary."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import msgspec

from boucle.cli.screen import Screen
from boucle.errors import BoucleError
from boucle.event import Command, Event, Receipt
from boucle.loop.run import Loop
from boucle.loop.view import LoopView

__all__ = ["interruptible", "page", "result", "tick", "wait"]


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that everything ends in order."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def page(loop: Loop, address: str, screen: Screen) -> Iterator[str]:
    """The page of a running loop; gives its URL."""
    from boucle.catalog.index import Index
    from boucle.loop.columns import trace_product
    from boucle.web import create_app, serve
    from boucle.web.catalog import CataloguePages

    host, _, port = address.rpartition(":")
    # Beyond loopback only the name it is bound to is answered: no DNS rebinding.
    hosts = {} if host in {"", "127.0.0.1", "localhost"} else {"hosts": ["*" if host == "0.0.0.0" else host]}  # noqa: S104
    index = Index(loop.plan.project.folder, loop.folder / "catalogue.sqlite")
    index.refresh(trace_product)
    catalogue = CataloguePages(index, runs=[loop.folder])
    app = create_app(loop.picture, language=None, catalogue=catalogue, **hosts)
    with serve(app, host=host or "127.0.0.1", port=int(port)) as server:
        screen.say(f"The page: {server.url}", f"La page : {server.url}")
        yield server.url
    index.close()


def tick(screen: Screen, told: Event | tuple[Command, Receipt]) -> None:
    """One line of the ticker."""
    if isinstance(told, Event):
        screen.event(told)
    else:
        screen.receipt(*told)


def wait(loop: Loop, screen: Screen, stop: threading.Event, seconds: float | None) -> None:
    """Show progress until stopped, out of time (seconds of the loop's clock) or failed."""
    started = loop.clock.now()
    while not stop.wait(0.2):
        view = loop.picture.view()
        elapsed = (loop.clock.now() - started) / 1e9
        screen.progress(_progress(view, elapsed, seconds, screen.language))
        if loop.failure is not None:
            screen.done()
            if isinstance(loop.failure, BoucleError):
                raise loop.failure
            raise RuntimeError("the loop stopped") from loop.failure
        if seconds is not None and elapsed >= seconds:
            break
        if all(source.state == "finished" for source in view.sources) and view.accounting.pending == 0:
            break
    screen.done()


def _progress(view: LoopView, elapsed: float, seconds: float | None, language: str) -> str:
    of = "" if seconds is None else f"/{seconds:.0f}"
    counts = view.accounting
    latency = "–" if math.isnan(view.decision_ms.p99) else f"{view.decision_ms.p99:.0f} ms"
    if language == "fr":
        latency = latency.replace(".", ",")
        return (
            f"{elapsed:.0f}{of} s · {counts.received} lectures, {counts.quarantined} en quarantaine · "
            f"décision p99 {latency} · {len(view.events)} événements, {len(view.commands)} commandes"
        )
    return (
        f"{elapsed:.0f}{of} s · {counts.received} readings, {counts.quarantined} quarantined · "
        f"decision p99 {latency} · {len(view.events)} events, {len(view.commands)} commands"
    )


def result(loop: Loop, since: float) -> dict[str, Any]:
    """What a run gave, for `--json`: events, commands with receipts, work orders, latency, accounting."""
    view = loop.picture.fresh()
    told = [_command(command, receipt) for command, receipt in reversed(view.commands)]
    return {
        "product": view.product,
        "seconds": round(time.monotonic() - since, 1),
        "events": [_plain(event) for event in reversed(view.events)],
        "commands": [command for command in told if not _is_order(command)],
        "work_orders": [_order(command) for command in told if _is_order(command)],
        "latency_ms": _latency(view.action_ms),
        "decision_ms": _latency(view.decision_ms),
        "accounting": msgspec.to_builtins(view.accounting),
        "path": [
            {
                "step": s.id,
                "rows_in": s.rows_in,
                "rows_out": s.rows_out,
                "p50_us": _us(s.p50_us),
                "p95_us": _us(s.p95_us),
                "p99_us": _us(s.p99_us),
                "state_bytes": s.state_bytes,
                "late_rows": s.late_rows,
            }
            for s in view.steps
        ],
    }


def _command(command: Command, receipt: Receipt | None) -> dict[str, Any]:
    _, machine, signal = (*command.target.split("/", 2), "", "")[:3]
    return {
        **_plain(command),
        "machine": machine,
        "signal": signal,
        "receipt": _plain(receipt) if receipt else None,
    }


def _order(command: dict[str, Any]) -> dict[str, Any]:
    order = command["value"]
    return {
        "type": str(order.get("WorkType", "")).lower(),
        "subject": order.get("HierarchyScope", command["machine"]),
        "description": order.get("Description", ""),
        **command,
    }


def _us(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 1)


def _is_order(command: dict[str, Any]) -> bool:
    return isinstance(command["value"], dict)


def _plain(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain


def _latency(latency: Any) -> dict[str, Any]:
    def known(value: float) -> float | None:
        return None if math.isnan(value) else round(value, 3)

    return {"p50": known(latency.p50), "p99": known(latency.p99), "count": latency.count}

"""Orders to train a model anew: the answer to a drift that changed the relation, not the instrument.

    to: training://        target <actuator>/<model>/training, verb order, value {"Reason": "…"}

`boucle train` runs in a process of its own, and what it registers becomes challenger: it is scored in shadow or
as a canary (`boucle.serve`), and only its gates make it champion. Like every command an order is limited in rate,
expires, may need approval, and is journaled before it is sent. One training runs at a time; an order is
written down before it is answered, so that a loop that was killed goes on with it. What a training came to is an
event: `training_done` or `training_failed`.
"""

import contextlib
import hashlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from boucle.act.lane import IN_DOUBT
from boucle.address import Address
from boucle.bus.log_disk import sync_folder
from boucle.clock import Clock, SystemClock
from boucle.errors import BoucleError
from boucle.event import Command, Outcome, Receipt

__all__ = ["Training", "TrainingActuator"]

_BOUCLE = (sys.executable, "-m", "boucle.cli.main")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_TOLD = 2000
"""Characters of an error that are kept."""

Tell = Callable[[str, str, dict[str, str], dict[str, Any]], None]
"""An event's kind, severity, sentences and evidence."""


class Training(Struct, frozen=True):
    """An order and what became of it: `waiting`, `done` or `failed`."""

    id: str
    model: str
    reason: str = ""
    state: str = "waiting"
    version: str = ""
    why: str = ""


class TrainingActuator:
    """Targets are `<actuator>/<model>/training`; a Command's value is a mapping with `Reason`."""

    idempotent = True

    def __init__(
        self,
        address: Address | str,
        *,
        clock: Clock | None = None,
        folder: Path | str = ".",
        run: Path | str = "run",
        role: str = "challenger",
        command: Sequence[str] = _BOUCLE,
        tell: Tell | None = None,
    ) -> None:
        del address  # it trains here
        self._tell = tell
        self._clock = clock or SystemClock()
        self._product, self._run, self._role, self._command = Path(folder), Path(run), role, tuple(command)
        self._orders = self._run / "trainings"
        self._waiting: queue.Queue[Training | None] = queue.Queue()
        self._known: dict[str, Training] = {}
        self._child: subprocess.Popen[str] | None = None
        self._closing = threading.Event()
        self._starting = threading.Lock()
        self._worker: threading.Thread | None = None

    def open(self) -> None:
        """Take up what was ordered and not finished; returns at once."""
        if self._worker is not None:
            return
        self._orders.mkdir(parents=True, exist_ok=True)
        for file in sorted(self._orders.glob("*.json"), key=lambda file: file.stat().st_mtime_ns):
            # A torn file was never answered: its sender orders again.
            with contextlib.suppress(msgspec.DecodeError):
                order = msgspec.json.decode(file.read_bytes(), type=Training)
                self._known[order.id] = order
                if order.state == "waiting":
                    self._waiting.put(order)
        self._closing.clear()
        self._worker = threading.Thread(target=self._work, name="training", daemon=True)
        self._worker.start()

    def send(self, command: Command) -> Receipt:
        """Write the order down and begin as soon as those before it are done."""
        if self._worker is None:
            raise BoucleError("B716", "the trainer is not open", fix="open it first")
        if not isinstance(command.value, Mapping):
            return self._receipt(command, Outcome.refused, "not_a_number", "an order is a mapping")
        order = Training(command.id, _model(command.target), str(command.value.get("Reason") or ""))
        if not _NAME.fullmatch(order.model):
            return self._receipt(
                command, Outcome.refused, "unknown_target", f"{order.model!r} is no model's name"
            )
        if order.id in self._known:
            why = f"this training was ordered already: {self._known[order.id].state}"
            return self._receipt(command, Outcome.duplicate, "duplicate", why)
        self._keep(order)
        self._waiting.put(order)
        return self._receipt(command, Outcome.applied, "", "", {"training": order.id, "model": order.model})

    def read(self, target: str) -> Any:
        """The trainings of the target's model, oldest first."""
        return [structs.asdict(one) for one in self._known.values() if one.model == _model(target)]

    def recover(self, command: Command) -> Receipt:
        """Applied when the order was written down; else failed: it can be sent again."""
        if command.id in self._known:
            return self._receipt(command, Outcome.applied, "", "its answer was lost; it is ordered")
        return self._receipt(command, Outcome.failed, IN_DOUBT, "its answer was lost; it is not ordered")

    def state(self) -> str:
        """`connected`; what the last training came to is told by `read` and by the log."""
        return "connected" if self._worker is not None else "not opened"

    def close(self) -> None:
        """End a training that runs; it begins again at the next start. Safe to call twice."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        with self._starting:
            self._closing.set()
            if self._child is not None:
                self._child.kill()
        self._waiting.put(None)
        worker.join()

    def _work(self) -> None:
        while (order := self._waiting.get()) is not None and not self._closing.is_set():
            done = self._train(order)
            if not self._closing.is_set():  # what was killed is not finished
                self._keep(done)
                if self._tell is not None:
                    severity = "info" if done.state == "done" else "warning"
                    self._tell(f"training_{done.state}", severity, _says(done), structs.asdict(done))

    def _train(self, order: Training) -> Training:
        product = ["--product", str(self._product)]
        trained = self._boucle(
            ["train", order.model, *product, "--folder", str(self._run), "--note", order.reason, "--json"]
        )
        if isinstance(trained, str):
            return structs.replace(order, state="failed", why=trained)
        version = str(trained["version"])
        number = version.rpartition("/")[2]
        promoted = self._boucle(
            [
                "promote",
                order.model,
                number,
                "--role",
                self._role,
                "--because",
                order.reason,
                *product,
                "--json",
            ]
        )
        if isinstance(promoted, str):
            return structs.replace(order, state="failed", version=version, why=promoted)
        return structs.replace(order, state="done", version=version)

    def _boucle(self, words: Sequence[str]) -> dict[str, Any] | str:
        """What a command of ours answers, or why it did not."""
        try:
            with self._starting:
                if self._closing.is_set():
                    return "the loop ends"
                child = self._child = subprocess.Popen(  # noqa: S603 - ourselves, with names that were checked
                    [*self._command, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            out, said = child.communicate()
            if child.returncode:
                return _error(out) or said.strip()[-_TOLD:] or f"exit code {child.returncode}"
            answer = json.loads(out)
        except (OSError, ValueError) as error:
            return str(error)
        finally:
            self._child = None
        return answer if isinstance(answer, dict) else f"it answered {out[:100]!r}"

    def _keep(self, order: Training) -> None:
        """On disk before it is said to be there."""
        name = hashlib.sha256(order.id.encode(errors="surrogatepass")).hexdigest()[:32]
        beside = self._orders / f"{name}.new"
        with beside.open("wb") as file:
            file.write(msgspec.json.encode(order))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._orders / f"{name}.json")
        sync_folder(self._orders)
        self._known[order.id] = order

    def _receipt(
        self, command: Command, outcome: Outcome, code: str, why: str, read_back: Any = None
    ) -> Receipt:
        now = self._clock.now()
        return Receipt(command.id, command.target, outcome, now, why, code, read_back=read_back)


def _error(out: str) -> str:
    """The error a command told as JSON, in one line; empty when it told none."""
    try:
        told = json.loads(out)["error"]
        words = (told["code"], told["what"], told["why"], told["fix"])
    except (ValueError, LookupError, TypeError):
        return ""
    return ": ".join(str(one) for one in words if one)[:_TOLD]


def _says(order: Training) -> dict[str, str]:
    if order.state == "done":
        return {
            "en": f"{order.version} was trained because {order.reason or 'somebody asked'}, and is on trial.",
            "fr": f"{order.version} a été entraîné (motif : {order.reason or 'sur demande'}), et est à l'essai.",
        }
    why = order.why.splitlines()[-1] if order.why else "?"
    return {
        "en": f"The training of {order.model} failed: {why}",
        "fr": f"L'entraînement de {order.model} a échoué : {why}",
    }


def _model(target: str) -> str:
    """`fraud` in `models/fraud/training`."""
    return target.partition("/")[2].rpartition("/")[0] or target

"""One engine in a process of its own: its rate, its answer, the processor and memory it took.

The child is given a workload folder and a file for its answer; the last line it prints is a JSON object with
`seconds` (one timed run after another, set-up excluded), `items` (per run) and, for W1, `sensors` and
`seconds_of_signal` that it covered. CPU time and memory are those of the whole process and its children,
from start to end: a JVM counts, and so do imports and warming up.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from msgspec import Struct

from bench.figures import ROOT, Figure, figure
from bench.peers import FOLDER, Unusable, environment
from bench.workloads import Verdict

__all__ = ["Engine", "Measured", "measure", "measure_all", "rows"]


class Engine(Struct, frozen=True):
    """Who is measured, and how."""

    name: str
    label: str
    """How the table calls it, with its configuration."""
    script: str
    """`peer/w1`, or a function of the benchmark's own module."""
    arguments: tuple[str, ...] = ()
    goal: float = 0.0
    """Our rate over its rate that is asked for (of ourselves: the rate); 0: nothing is."""
    quick: bool = True
    """Whether it fits into a quick run."""
    timeout: float = 240.0


class Measured(Struct, frozen=True):
    """What an engine did."""

    engine: Engine
    rate: float
    cpu_s: float
    peak_mb: float
    verdict: Verdict
    told: dict[str, Any]


class _Watch:
    """CPU seconds and peak memory of a process and all its children, looked at twenty times a second."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._cpu: dict[int, float] = {}
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stopped.wait(0.05):
            resident = 0
            try:
                family = [self._process, *self._process.children(recursive=True)]
            except psutil.Error:
                return
            for one in family:
                try:
                    times, resident = one.cpu_times(), resident + one.memory_info().rss
                    self._cpu[one.pid] = times.user + times.system
                except psutil.Error:
                    continue
            self._peak = max(self._peak, resident)

    def stop(self) -> tuple[float, float]:
        self._stopped.set()
        self._thread.join()
        return sum(self._cpu.values()), self._peak / 2**20


def _end(process: subprocess.Popen[str]) -> None:
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        family = []
    process.kill()
    for one in family:
        try:
            one.kill()
        except psutil.Error:
            continue


def measure(
    engine: Engine,
    module: str,
    folder: Path,
    check: Callable[[dict[str, Any], Any], Verdict],
    *,
    make: bool,
) -> Measured:
    """Run an engine and check its answer; Unusable when it can not be run here."""
    peer, _, part = engine.script.partition("/")
    with tempfile.TemporaryDirectory(prefix="boucle-peer-") as scratch:
        answer = Path(scratch) / "answer.npy"
        if part:
            python = str(environment(peer, make=make))
            command = [python, str(FOLDER / peer / f"{part}.py")]
        else:
            call = f"import sys; from {module} import {peer} as run; run(*sys.argv[1:])"
            command = [sys.executable, "-c", call]
        command += [str(folder), str(answer), *engine.arguments]
        errors = Path(scratch) / "errors"
        with errors.open("w", encoding="utf-8") as told_errors:
            process = subprocess.Popen(
                command,
                cwd=ROOT if not part else scratch,
                stdout=subprocess.PIPE,
                stderr=told_errors,
                text=True,
            )
            watch = _Watch(psutil.Process(process.pid))
            try:
                output, _ = process.communicate(timeout=engine.timeout)
            except subprocess.TimeoutExpired as late:
                _end(process)
                process.communicate()
                raise Unusable(f"not done after {engine.timeout:.0f} s") from late
            finally:
                cpu, peak = watch.stop()
        if process.returncode:
            said = [line for line in errors.read_text(encoding="utf-8").splitlines() if line.strip()]
            raise Unusable(f"exit code {process.returncode}: {said[-1] if said else 'it said nothing'}")
        told = json.loads(output.strip().splitlines()[-1])
        rate = told["items"] / statistics.median(told["seconds"])
        return Measured(engine, rate, cpu, peak, check(told, np.load(answer)), told)


def measure_all(
    engines: Sequence[Engine],
    module: str,
    folder: Path,
    check: Callable[[dict[str, Any], Any], Verdict],
    *,
    quick: bool,
) -> list[Measured]:
    """Every engine that can be run, one after the other; why the others can not goes to standard error."""
    done = []
    for engine in engines:
        if quick and not engine.quick:
            print(f"{engine.label}: left out of a quick run", file=sys.stderr)
            continue
        begun = time.monotonic()
        try:
            one = measure(engine, module, folder, check, make=not quick)
        except Unusable as reason:
            print(f"{engine.label}: left out, {reason}", file=sys.stderr)
            continue
        took = time.monotonic() - begun
        print(f"{engine.label}: {one.rate:,.0f}/s, {one.verdict}, {took:.0f} s", file=sys.stderr, flush=True)
        done.append(one)
    return done


def rows(measured: Sequence[Measured], ours: str, unit: str) -> list[Figure]:
    """Our rate beside each engine's, then what each took; a wrong answer has no goal and says so."""
    found = [one for one in measured if one.engine.name == ours]
    figures: list[Figure] = []
    kind = unit.partition("/")[0]
    for one in measured:
        engine = one.engine
        label = engine.label
        if not one.verdict.right:
            label += f": wrong by {100 * one.verdict.wrong_share:.2g} %"
        if engine.name == ours or not found:
            asked = f">= {engine.goal:.4g}" if engine.goal and one.verdict.right else ""
            figures.append(figure(f"{engine.name}_{kind}_per_s", one.rate, unit, goal=asked, peer=label))
            continue
        goal = f">= {engine.goal * one.rate:.4g}" if engine.goal and one.verdict.right else ""
        name = f"{ours}_{kind}_per_s_beside_{engine.name}"
        figures.append(figure(name, found[0].rate, unit, goal=goal, peer=label, peer_value=one.rate))
    for one in measured:
        million = one.told["items"] * len(one.told["seconds"]) / 1e6
        figures.append(figure(f"{one.engine.name}_cpu_s", one.cpu_s, f"s for {million:.3g} M"))
        figures.append(figure(f"{one.engine.name}_peak_mb", one.peak_mb, "MB"))
    return figures

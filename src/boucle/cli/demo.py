"""`boucle demo press`: a whole simulated plant, and the loop on it, in one go."""

import argparse
import json
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from boucle.cli.screen import Screen, choose_language

__all__ = ["arguments", "examples_folder", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle demo`."""
    parser.add_argument("name", choices=["press"], help="which demonstration")
    parser.add_argument(
        "--duration", type=float, metavar="SECONDS", help="simulated time (default: the scenario's)"
    )
    parser.add_argument("--headless", action="store_true", help="without the page")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what happened as one HTML file")
    parser.add_argument("--scenario", type=Path, metavar="FILE", help="another story than the shipped one")
    parser.add_argument("--seed", type=int, default=1, help="another run of the same story (default 1)")
    parser.add_argument(
        "--speed", type=float, default=1.0, help="event time faster than real time (default 1)"
    )
    parser.add_argument("--port", type=int, default=8000, help="of the page (default 8000; 0: any free one)")
    parser.add_argument(
        "--folder", type=Path, help="keep log and lake here (default: run/demo-press, made afresh)"
    )
    parser.add_argument("--json", action="store_true", help="at the end, one JSON object on standard output")
    parser.add_argument(
        "--lang", choices=["en", "fr"], help="language of the screens (default: the locale's)"
    )
    parser.epilog = (
        "examples:\n  boucle demo press\n  boucle demo press --seed 7 --speed 4 --headless --json\n"
        "  boucle demo press --duration 120 --report press.html"
    )


def examples_folder(name: str) -> Path:
    """Where an example product is: inside the installed package, or beside the sources of a checkout."""
    import boucle

    package = Path(boucle.__file__).parent
    installed = package / "examples" / name
    return installed if installed.exists() else package.parents[1] / "examples" / name


def run(options: argparse.Namespace) -> int:
    """Start broker, PLC, MES, machines, loop and page; tell the story; end cleanly."""
    from boucle.cli.session import interruptible, page, result, tick, wait
    from boucle.cli.plant import Plant
    from boucle.loop.plan import build_plan
    from boucle.loop.run import Loop
    from boucle.product.project import load_project

    since = time.monotonic()
    screen = Screen(choose_language(options.lang))
    product = examples_folder(options.name)
    folder = options.folder or Path("run") / f"demo-{options.name}"
    if options.folder is None and folder.exists():
        shutil.rmtree(folder)
    with interruptible() as stop, ExitStack() as stack:
        plant = stack.enter_context(Plant.started(options, product, screen))
        project = load_project(product, None, {**plant.addresses, "run.folder": str(folder)})
        loop = Loop(build_plan(project), plant.clock, listener=lambda told: tick(screen, told))
        loop.open()
        loop.start()
        stack.callback(loop.stop)
        if not options.headless:
            stack.enter_context(page(loop, f"127.0.0.1:{options.port}", screen))
        plant.play()
        wait(loop, screen, stop, options.duration or plant.scenario.duration)
        plant.pause()
        loop.drain()
    told = {"seed": options.seed, "truth": plant.truth(), **result(loop, since), "mes": plant.orders()}
    if options.report:
        _write_report(options, loop, told, screen)
    _summary(told, screen)
    if options.json:
        print(json.dumps(told, ensure_ascii=False, default=str))
    return 0

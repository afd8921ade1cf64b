"""`boucle demo press`: a whole simulated plant, and the loop on it, in one go."""

import argparse
import json
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from boucle.cli.screen import Screen, choose_language
from boucle.errors import BoucleError

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
        "examples:\n  boucle demo press\n  boucle demo press --seed 7 --speed 2 --headless --json\n"
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
    from boucle.cli.plant import Plant
    from boucle.cli.session import interruptible, page, result, tick, wait
    from boucle.loop.plan import build_plan
    from boucle.loop.run import Loop
    from boucle.product.project import load_project
    from boucle.testing import load_scenario

    since = time.monotonic()
    _check_report(options.report)
    screen = Screen(choose_language(options.lang))
    product = examples_folder(options.name)
    scenario = load_scenario(options.scenario or product / "scenario.yaml")
    folder = _folder(options)
    with interruptible() as stop, ExitStack() as stack:
        plant = stack.enter_context(Plant.started(scenario, options.seed, options.speed, screen))
        project = load_project(product, None, {**plant.addresses, "run.folder": str(folder)})
        loop = Loop(build_plan(project), plant.clock, listener=lambda told: tick(screen, told))
        loop.open()
        loop.start()
        stack.callback(loop.stop)
        if not options.headless:
            stack.enter_context(page(loop, f"127.0.0.1:{options.port}", screen))
        screen.say(*_opening(scenario))
        plant.play()
        wait(loop, screen, stop, options.duration or scenario.duration)
        plant.pause()
        loop.drain()
        lives = {machine.id: loop.observer.live(machine.id) for machine in loop.picture.fresh().machines}
    told = {"seed": options.seed, "truth": plant.truth(), **result(loop, since)}
    told["mes"], told["sent"] = plant.orders(), plant.sent()
    if options.report:
        from boucle.web.report import render_report

        options.report.write_text(render_report(told, lives, screen.language), encoding="utf-8")
        screen.say(f"Report: {options.report}", f"Rapport : {options.report}")
    screen.say(*_closing(told, folder))
    if options.json:
        print(json.dumps(told, ensure_ascii=False, default=str))
    return 0


def _check_report(file: Path | None) -> None:
    # Said now, and not after two minutes when there is nothing left to write it from.
    if file is not None and (file.is_dir() or not os.access(file.absolute().parent, os.W_OK)):
        raise BoucleError(
            "B811", f"the report {file} cannot be written", fix="name a file in a folder that is there"
        )


def _folder(options: argparse.Namespace) -> Path:
    if options.folder is not None:
        return Path(options.folder)
    folder = Path("run") / f"demo-{options.name}"
    if folder.exists():
        shutil.rmtree(folder)
    return folder


def _opening(scenario: Any) -> tuple[str, str]:
    title = scenario.title
    return (
        f"The story: {title.get('en', 'untitled')}. Ctrl-C ends it.",
        f"L'histoire : {title.get('fr', 'sans titre')}. Ctrl-C l'arrête.",
    )


def _closing(told: dict[str, Any], folder: Path) -> tuple[str, str]:
    counts = told["accounting"]
    numbers = (
        f"{counts['in']} = {counts['stored']} + {counts['late']} + {counts['duplicate']} + "
        f"{counts['quarantined']} + {counts['shed']}"
    )
    measured = told["latency_ms"]["p50"]
    latency = "–" if measured is None else f"{measured} ms"
    en = (
        f"Readings in = stored + late + duplicate + quarantined + shed: {numbers}. "
        f"Sample to PLC, read back: {latency} (median). Log and tables: {folder}"
    )
    fr = (
        f"Lectures reçues = stockées + tardives + doublons + quarantaine + délestées : {numbers}. "
        f"Échantillon → automate, relu : {latency.replace('.', ',')} (médiane). Journal et tables : {folder}"
    )
    return en, fr

"""`boucle run`: a product on its real sources."""

import argparse
import json
import time
from pathlib import Path

from boucle.cli.screen import Screen, choose_language

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle run`."""
    parser.add_argument(
        "folder", nargs="?", default=".", type=Path, help="the product's folder (default: here)"
    )
    parser.add_argument("--env", help="an environment of boucle.toml")
    parser.add_argument(
        "--duration", type=float, metavar="SECONDS", help="stop after so long (default: Ctrl-C)"
    )
    parser.add_argument("--headless", action="store_true", help="without the page")
    parser.add_argument("--json", action="store_true", help="at the end, one JSON object on standard output")
    parser.add_argument(
        "--lang", choices=["en", "fr"], help="language of the screens (default: the locale's)"
    )
    parser.epilog = (
        "examples:\n  boucle run examples/press\n  boucle run --env plant --headless --duration 3600 --json"
    )


def run(options: argparse.Namespace) -> int:
    """Run until Ctrl-C, the end of the input, or the given time."""
    from contextlib import ExitStack

    from boucle.cli.session import interruptible, page, result, tick, wait
    from boucle.clock import SystemClock
    from boucle.loop.plan import build_plan
    from boucle.loop.run import Loop
    from boucle.product.project import load_project

    screen = Screen(choose_language(options.lang))
    plan = build_plan(load_project(options.folder, options.env))
    since = time.monotonic()
    with interruptible() as stop, ExitStack() as stack:
        loop = Loop(plan, SystemClock(), listener=lambda told: tick(screen, told))
        loop.open()
        loop.start()
        stack.callback(loop.stop)
        if not options.headless:
            stack.enter_context(page(loop, str(plan.project.settings.get("run.web").value), screen))
        screen.say(
            f"{plan.project.id} runs; Ctrl-C ends it. Its folder: {loop.folder}",
            f"{plan.project.id} tourne ; Ctrl-C l'arrête. Son dossier : {loop.folder}",
        )
        wait(loop, screen, stop, options.duration)
    if options.json:
        print(json.dumps(result(loop, since), ensure_ascii=False))
    return 0

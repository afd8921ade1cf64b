"""`boucle VERB …`: finds the verb, runs it, and turns what goes wrong into a line that teaches.

Each verb lives in its own file with two functions: `arguments(parser)` and `run(options) -> exit code`.
A verb's file is imported only when it is asked for, so that `boucle --help` answers at once.
"""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from boucle import __version__
from boucle.cli.screen import print_error
from boucle.errors import BoucleError

__all__ = ["VERBS", "main"]

VERBS = {
    "demo": "start a whole simulated plant and run the loop on it: broker, PLC, MES, machines, page",
    "init": "begin a product: empty, or inferred from data, with guesses to confirm",
    "contract": "tell a contract in another schema language, or read one from it",
    "check": "check a product: all its problems at once, with file, line, why and fix",
    "diff": "what changed between two versions of a promise, for whom it breaks, which version says so",
    "run": "run a product on its real sources",
    "replay": "run recorded input through a product: a file, or the lake",
    "explain": "show the plan, each setting, and where it came from",
    "state": "what a run remembers: its last checkpoint, step by step",
    "quality": "hold the contract against tables and files: what is broken, how gravely, which rows",
    "slo": "how the promises of a run stand: error budgets, how fast they burn",
    "deadletters": "events a receiver refused for good: list, show, send again",
    "quarantine": "refused readings: list, show, export to be mended, judge again",
    "sql": "ask the lake's tables a question in SQL",
    "catalog": "find products, tables and columns; read their pages; serve them as a web site",
    "lineage": "what breaks without a column, where a number comes from; send lineage to other tools",
    "lake": "the lake's tables: history, time travel, changes, upkeep, backfill, Iceberg",
    "refine": "tables made from tables by SQL or dbt, published when their gates pass",
    "train": "train a model from feature views as they were known, and register it if it beats its baselines",
    "features": "feature views as they are served: fill the store from the view's table, show what a key gets",
    "models": "registered models: list, show, verify, reproduce, package, add, sign",
    "promote": "give a version of a model a role, when its gates pass",
    "rollback": "a table as it was at a version or a moment; a model's champion before this one",
    "serve": "the tables over SQL, Arrow Flight SQL and REST; models by the Open Inference Protocol",
    "score": "a table of the lake scored by a model into another table: what is new, exactly once",
    "doctor": "what is installed, reachable or missing, and how to get it",
}

_CHATTY = ("asyncua", "amqtt", "transitions", "paho")
"""Libraries that log at every lost connection; our own adapters say it once, in words."""

_EXAMPLES = """examples:
  boucle demo press                       the press line, live in a browser
  boucle demo press --headless --json     the same, as one JSON object
  boucle check products/press             is the declaration sound?
  boucle sql "select * from maintenance_summary order by at desc limit 5"
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code is 0, 1 (it went wrong), 2 (it was asked wrongly) or 130 (Ctrl-C)."""
    given = list(sys.argv[1:] if words is None else words)
    parser = argparse.ArgumentParser(
        prog="boucle",
        usage="boucle [-h] [--version] VERB ...",
        description="Close the loop from sensor or transaction to action, and run it like a product.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"boucle {__version__}")
    # As wide as the longest verb with its indentation: argparse forgets the latter.
    wide = max(map(len, VERBS)) + 2
    verbs = parser.add_subparsers(dest="verb", metavar="VERB".ljust(wide), required=True)
    asked = next((word for word in given if not word.startswith("-")), None)
    for verb, summary in VERBS.items():
        shown = argparse.RawDescriptionHelpFormatter
        sub = verbs.add_parser(
            verb, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", formatter_class=shown
        )
        if verb == asked:
            importlib.import_module(f"boucle.cli.{verb}").arguments(sub)
    options = parser.parse_args(given)
    module = importlib.import_module(f"boucle.cli.{options.verb}")
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    try:
        return int(module.run(options))
    except BoucleError as error:
        print_error(error, getattr(options, "json", False))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`boucle … | head`): nothing to say, nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())

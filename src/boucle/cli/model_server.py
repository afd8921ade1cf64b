"""`boucle serve --models`: the models of a registry or a folder, over the Open Inference Protocol."""

import argparse
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from boucle.errors import BoucleError

if TYPE_CHECKING:
    from boucle.serve.oip.shelf import Offer

__all__ = ["model_arguments", "serve_models"]

_HTTP, _GRPC = "127.0.0.1:8000", "127.0.0.1:8001"


def model_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that only make sense with --models."""
    group = parser.add_argument_group("models, by the Open Inference Protocol")
    group.add_argument(
        "--models",
        metavar="WHERE",
        help="serve models instead of tables: a product, a registry, a model folder or a folder of them",
    )
    group.add_argument("--grpc", metavar="HOST:PORT", help=f"the protocol's gRPC (default {_GRPC})")
    group.add_argument(
        "--predictions",
        type=Path,
        metavar="FOLDER",
        help="keep every answer: a log, and a table raw.predictions",
    )
    group.add_argument(
        "--keep",
        choices=["inputs", "digest"],
        default="inputs",
        help="of each predicted row: its inputs, or only their SHA-256 (default: inputs)",
    )
    group.add_argument(
        "--no-shadow", action="store_true", help="challengers do not score beside the champion"
    )
    group.add_argument(
        "--python",
        default="",
        metavar="PATH",
        help="the interpreter for models that are no ONNX (default: models.python of the product)",
    )
    group.add_argument(
        "--waiting", type=int, default=256, help="requests at once; more are refused (default 256)"
    )
    group.add_argument("--deadline", type=float, default=5.0, help="seconds for an answer (default 5)")


def serve_models(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from boucle.cli.session import interruptible
    from boucle.serve.oip.answering import Answering, Limits
    from boucle.serve.oip.server import ModelServer
    from boucle.serve.oip.shelf import Shelf
    from boucle.serve.oip.sidecar import Sidecar

    http, grpc = (_address(given or usual) for given, usual in ((options.http, _HTTP), (options.grpc, _GRPC)))
    pair, allows = _guarded(options, (http[0], grpc[0]))
    if options.waiting < 1 or options.deadline <= 0:
        raise BoucleError("B682", "--waiting and --deadline are positive", fix="--waiting 256 --deadline 5")
    shelf = Shelf(options.models, options.python)
    sidecar = None
    if options.predictions or not options.no_shadow:
        sidecar = Sidecar(
            options.models, folder=options.predictions, keep=options.keep, shadow=not options.no_shadow
        )
    answering = Answering(
        shelf,
        limits=Limits(waiting=options.waiting, seconds=options.deadline),
        sidecar=sidecar,
        allows=allows,
    )
    with interruptible() as stop:
        server = ModelServer(answering, http=http, grpc=grpc, certificate=pair)
        server.start()
        gc.collect()
        gc.freeze()  # what was made until now stays: to look through it again costs pauses of milliseconds
        try:
            _say(server.url, f"{grpc[0]}:{server.grpc[1] if server.grpc else 0}", shelf.offers(), options)
            shelf.on_change = None if options.json else _changed
            stop.wait()
        finally:
            gc.unfreeze()
            server.stop()
    return 0


def _guarded(
    options: argparse.Namespace, hosts: tuple[str, ...]
) -> "tuple[tuple[Path, Path] | None, Callable[[str], bool] | None]":
    """Certificate and key, and who may ask: the same rules as for tables."""
    from boucle.outlet.endpoint import check_exposed, tls_context
    from boucle.outlet.tokens import Tokens
    from boucle.outlet.users import Users

    if (options.certificate is None) != (options.key is None):
        what = "a certificate needs its key, and a key its certificate"
        raise BoucleError("B843", what, fix="--certificate PEM --key PEM")
    pair = (options.certificate, options.key) if options.certificate else None
    if pair:
        tls_context(*pair)
    users = Users(options.users) if options.users else None
    for host in hosts:
        check_exposed(host, users, encrypted=pair is not None)
    return pair, Tokens(users).allows if users else None


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65_535:
        raise BoucleError("B842", f"{text!r} is no HOST:PORT", fix="127.0.0.1:8000")
    return host.strip("[]") or "127.0.0.1", int(port)


def _say(http: str, grpc: str, offers: "dict[str, Offer]", options: argparse.Namespace) -> None:
    versions = {name: offer.default.version if offer.default else None for name, offer in offers.items()}
    if options.json:
        print(json.dumps({"http": http, "grpc": grpc, "models": versions}), flush=True)
        return
    print(f"http    {http}/v2\ngrpc    {grpc}", file=sys.stderr)
    for name, version in versions.items():
        print(f"model   {name} {version or '(not ready)'}", file=sys.stderr)
    print("Ctrl-C ends it.", file=sys.stderr, flush=True)


def _changed(offer: "Offer") -> None:
    roles = ", ".join(f"{role} {version}" for role, version in offer.roles.items())
    print(f"model   {offer.name}: {roles}", file=sys.stderr, flush=True)

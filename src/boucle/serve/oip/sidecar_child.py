"""The process beside a model server: `python -m boucle.serve.oip.sidecar_child SOCKET`. See `sidecar`."""

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import get_args

from boucle.errors import BoucleError, Unavailable
from boucle.serve.oip.predictions import Keep, Predictions
from boucle.serve.oip.shadow import Shadows
from boucle.serve.oip.shelf import EVERY_S, Shelf
from boucle.serve.oip.sidecar_wire import Batch, Frames, Order, Status, frame

NICE = 10
"""Requests come first, where processors are few."""
_LOCKED_S = 3.0
"""How long the log may be held by the sidecar of a server that was killed, which writes what it was given."""


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # its end is that of the server, not the terminal's
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    logging.basicConfig(format="%(levelname)s %(message)s")
    logging.getLogger("boucle.serve.oip.shelf").setLevel(
        logging.ERROR
    )  # the server says what cannot be loaded
    with socket.socket(fileno=int(sys.argv[1])) as server:
        orders = Frames(Order)
        order: list[Order] | None = []
        while order is not None and not order:
            order = orders.read(server)
        if not order:
            return
        try:
            beside = _Beside(server, order[0])
        except BoucleError as error:
            told = (error.code, error.what, error.where, error.why, error.fix)
            server.sendall(frame(Status(problem=told)))
            return
        beside.run()


class _Beside:
    """Takes batches until the server is gone."""

    def __init__(self, server: socket.socket, order: Order) -> None:
        self._server, self._batches = server, Frames(Batch)
        self._shelf = Shelf(order.models) if order.shadow else None
        self._shadows = Shadows(self._shelf) if self._shelf else None
        self._predictions: Predictions | None = None
        if order.folder is not None:
            keep: Keep = "inputs" if order.keep == get_args(Keep)[0] else "digest"
            self._predictions = _opened(Predictions(Path(order.folder), keep=keep))
        self._settled = 0

    def run(self) -> None:
        """Answer that it began, then take."""
        self._tell()
        looked = 0.0
        while True:
            ready, _, _ = select.select([self._server], [], [], 0.1)
            now = time.monotonic()
            if self._shelf is not None and now - looked >= EVERY_S:
                self._refresh(self._shelf)
                looked = now
            batches = self._batches.read(self._server) if ready else []
            if batches is None:
                break
            for batch in batches:
                self._take(batch)
            if self._predictions is not None:
                self._predictions.step()
            if batches:
                self._tell()
        if self._predictions is not None:
            self._predictions.close()
        self._tell()

    def _refresh(self, shelf: Shelf) -> None:
        try:
            shelf.refresh()
        except (BoucleError, OSError) as error:  # the registry is away: what is loaded goes on
            logging.getLogger(__name__).debug("the models cannot be looked at: %s", error)

    def _take(self, batch: Batch) -> None:
        scored = batch.scored()
        again = self._shadows.again(scored) if self._shadows else []
        if self._predictions is not None:
            self._predictions.write(scored + again)
        self._settled += sum(len(one.rows) for one in scored)

    def _tell(self) -> None:
        kept, compared = self._predictions, self._shadows.compared if self._shadows else {}
        status = Status(
            settled=self._settled,
            stored=kept.stored if kept else 0,
            failed=kept.failed if kept else 0,
            compared=list(compared.items()),
        )
        with contextlib.suppress(OSError):  # the server does not listen any more
            self._server.sendall(frame(status))


def _opened(predictions: Predictions) -> Predictions:
    begun = time.monotonic()
    while True:
        try:
            predictions.open()
        except Unavailable:
            if time.monotonic() - begun > _LOCKED_S:
                raise
            time.sleep(0.05)
        else:
            return predictions


if __name__ == "__main__":
    main()

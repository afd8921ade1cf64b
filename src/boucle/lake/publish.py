"""Making a version: files that are already there join the table, and others leave it, in one commit.

In a folder the commit is written here: one small file that appears whole under the next number, or not at all when
somebody was faster; delta-rs lists and reads the log for it, twenty times the work. It still writes the checkpoints,
and every commit to a bucket (the server refuses the second one to write a version), and to a table whose protocol
asks for more than we write.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from boucle.lake import deltars
from boucle.lake.commit import Action, written
from boucle.lake.log import Log
from boucle.lake.place import Local, commit_file

__all__ = ["publish"]

_log = logging.getLogger("boucle.lake.publish")

_DEFAULT_INTERVAL = 100
"""Delta's own, for a table that says nothing."""


def publish(
    log: Log, actions: Sequence[Action], marks: Mapping[str, int], because: Mapping[str, Any] | None
) -> None:
    """Make the version after the one `log` knows, and take it in.

    Call it within `place.alone()`. CommitFailedError when somebody else made that version: look, and begin again.
    """
    if isinstance(log.place, Local) and log.plain:
        body = written(actions, log.partitions, marks, because)
        if not log.place.put_new(commit_file(log.version + 1), body):
            raise deltars.CommitFailedError(f"version {log.version + 1} was made by somebody else")
        log.take(body.decode())
        _checkpoint(log)
        return
    planned = log.version
    delta = log.delta()
    if log.version != planned:
        raise deltars.CommitFailedError(f"version {planned + 1} was made by somebody else")
    deltars.commit(delta, actions, deltars.properties(marks, because))
    log.follow()


def _checkpoint(log: Log) -> None:
    """Every so many versions, so that others open the table quickly; one that fails is made good by the next."""
    told = log.configuration.get("delta.checkpointInterval", "")
    if (log.version + 1) % (int(told) if told.isdigit() and int(told) else _DEFAULT_INTERVAL):
        return
    try:
        log.delta().create_checkpoint()
    except deltars.BROKEN as error:
        _log.warning("%s has no checkpoint at version %d: %s", log.place.address, log.version, error)

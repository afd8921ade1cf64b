"""What of a table in a folder survives a power cut: files are flushed here, which delta-rs never does."""

import os
from urllib.parse import unquote

from boucle.lake.commit import lines_of
from boucle.lake.place import Local, commit_file, fsync

__all__ = ["Durable"]


class Durable:
    """How far one table is flushed."""

    def __init__(self, place: Local) -> None:
        self._place = place
        self._upto = -1

    def flush(self, version: int, inherited: int) -> None:
        """Return when every version up to `version` is safe; those up to `inherited` another process may have made."""
        if self._upto < inherited:
            os.sync()  # it may have left anything unwritten: once, everything is flushed
            self._upto = inherited
        table = self._place.folder
        log = table / "_delta_log"
        folders = {table.parent, table, log}
        for number in range(self._upto + 1, version + 1):
            text = self._place.text(commit_file(number)) or ""
            added = [table / unquote(line.add.path) for line in lines_of(text) if line.add]
            for file in (*added, table / commit_file(number), log / f"{number:020d}.checkpoint.parquet"):
                fsync(file)
                folders.update(parent for parent in file.parents if parent.is_relative_to(table))
        fsync(log / "_last_checkpoint")
        for folder in folders:
            fsync(folder)
        self._upto = max(self._upto, version)

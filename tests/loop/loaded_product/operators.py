"""A step that waits when it is told to."""

import threading
import time
from collections.abc import Sequence

from boucle.block import Block


class Gate:
    """Gives on what it is given, once it is `open`, and not before each row took `seconds` of work."""

    def __init__(self, stream: str) -> None:
        self.open = threading.Event()
        self.open.set()
        self.seconds = 0.0
        self.seen = 0
        self._stream = stream

    def step(self, block: Block) -> Sequence[Block]:
        """Wait, then let the rows pass."""
        self.seen += len(block)
        self.open.wait()
        if self.seconds:
            time.sleep(self.seconds * len(block))
        return (Block(self._stream, block.rows, block.watermark, block.position),)

    def snapshot(self) -> bytes:
        """Nothing to remember."""
        return b""

    def restore(self, state: bytes) -> None:
        """Nothing was remembered."""

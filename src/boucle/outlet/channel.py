"""One client's connection: whole messages in, bytes out, plain or in TLS."""

import socket
import ssl

from boucle.outlet.refused import Refused, broken_protocol

__all__ = ["Channel", "Gone"]

STARTUP_BYTES = 10_000
"""PostgreSQL's own bound for a first message."""
_HELD = 65_536
_TLS_HANDSHAKE = 0x16


class Gone(Exception):
    """The client went away; nobody is left to be told anything."""


class Channel:
    """Reads messages no longer than `longest` bytes and collects what is sent until `flush`."""

    def __init__(self, connection: socket.socket, longest: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.encrypted = False
        self._socket: socket.socket = connection
        self._longest = longest
        self._waiting = bytearray()
        self._unsent: list[bytes | memoryview] = []
        self._size = 0

    def patience(self, seconds: float | None) -> None:
        """How long a read or a write may take; None: for ever."""
        self._socket.settimeout(seconds)

    def stalls_after(self, seconds: float) -> None:
        """How long the client may leave what is sent to it unread; it may stay silent for ever."""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def hang_up(self) -> None:
        """End the connection from another thread: whoever reads or writes finds the client gone."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it was gone

    def begins_encrypted(self) -> bool:
        """Whether the client starts with TLS at once (`sslnegotiation=direct`) instead of asking for it."""
        try:
            return self._socket.recv(1, socket.MSG_PEEK)[:1] == bytes([_TLS_HANDSHAKE])
        except OSError as error:
            raise Gone from error

    def encrypt(self, context: ssl.SSLContext) -> None:
        """From now on in TLS. Bytes that came before it would be an injection: the connection ends (CVE-2021-23214)."""
        if self._waiting:
            raise broken_protocol("there are unencrypted bytes behind the request for encryption")
        try:
            self._socket = context.wrap_socket(self._socket, server_side=True)
        except (OSError, ValueError) as error:
            raise Gone from error
        self.encrypted = True

    def startup(self) -> bytes:
        """The body of a first message."""
        length = int.from_bytes(self._exactly(4), "big")
        if not 8 <= length <= STARTUP_BYTES:
            raise broken_protocol(f"a first message of {length} bytes")
        return self._exactly(length - 4)

    def message(self) -> tuple[str, bytes]:
        """Kind and body of the next message; what was to be sent goes out before waiting for it."""
        if len(self._waiting) < 5:
            self.flush()
        head = self._exactly(5)
        length = int.from_bytes(head[1:], "big")
        if length < 4:
            raise broken_protocol(f"a message of {length} bytes")
        if length > self._longest:
            raise Refused(
                "B834",
                f"a message of {length} bytes is too long",
                sqlstate="08P01",
                why=f"the limit is {self._longest}",
                fix="send less at once",
            )
        return chr(head[0]), self._exactly(length - 4)

    def _exactly(self, count: int) -> bytes:
        while len(self._waiting) < count:
            try:
                more = self._socket.recv(max(_HELD, min(count - len(self._waiting), 1 << 20)))
            except (OSError, ValueError) as error:
                raise Gone from error
            if not more:
                raise Gone
            self._waiting += more
        taken = bytes(self._waiting[:count])
        del self._waiting[:count]
        return taken

    def send(self, data: bytes | memoryview) -> None:
        """Send soon."""
        if len(data) > _HELD:
            self.flush()
        self._unsent.append(data)
        self._size += len(data)
        if self._size > _HELD:
            self.flush()

    def flush(self) -> None:
        """Send now."""
        if not self._unsent:
            return
        unsent, self._unsent, self._size = self._unsent, [], 0
        try:
            # Rows come in large pieces that need no copy; small messages go out together.
            self._socket.sendall(unsent[0] if len(unsent) == 1 else b"".join(unsent))
        except (OSError, ValueError) as error:
            raise Gone from error

    def reply(self, byte: bytes) -> None:
        """One byte, at once: the answer to a request for encryption."""
        self.send(byte)
        self.flush()

    def close(self) -> None:
        """Give back the socket. Safe to call twice."""
        try:
            self._socket.close()
        except OSError:
            return  # an unclean end of TLS is an end

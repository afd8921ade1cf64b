"""amqtt, a broker in pure Python, in a process of its own: for machines without mosquitto.

    python -m boucle.bus.embedded PORT        (started by `EmbeddedBroker`; not a command for people)

It speaks MQTT 3.1.1, forgets a client that goes away, and gives up on a message that is not
acknowledged within five seconds; good for a demonstration, not for a plant. A process, because it
computes as much as the loop does and leaves sockets behind when its clients go. The only importer of
amqtt.
"""

import asyncio
import logging
import select
import subprocess
import sys

from boucle.errors import Unavailable

__all__ = ["EmbeddedBroker", "embedded_ports"]

embedded_ports: set[int] = set()
"""Loopback ports where an embedded broker listens: our clients need not try MQTT 5 there."""

_PATIENCE = 20.0
_READY = "ready"


class EmbeddedBroker:
    """amqtt listening on a loopback port, from construction until `stop`, or until we end."""

    def __init__(self, port: int) -> None:
        self.port = port
        words = [sys.executable, "-m", "boucle.bus.embedded", str(port)]
        # A session of its own: Ctrl-C in the terminal is for us, who then end it in order.
        self._process = subprocess.Popen(  # noqa: S603 - our own module, our own interpreter
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        said = self._first_line()
        if said != _READY:
            self.stop()
            where = f"127.0.0.1:{port}"
            fix = "choose another port, or apt-get install mosquitto"
            raise Unavailable("B306", "amqtt did not start", where=where, why=said, fix=fix)
        embedded_ports.add(port)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def stop(self) -> None:
        """End it and wait until its port is free. Safe to call twice."""
        embedded_ports.discard(self.port)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _first_line(self) -> str:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _PATIENCE)[0]:
            return f"it took more than {_PATIENCE:g} s"
        return self._process.stdout.readline().strip() or "its process ended"


async def _serve(port: int) -> None:
    from amqtt.broker import Broker
    from amqtt.contexts import BrokerConfig, ListenerConfig
    from amqtt.errors import AMQTTError, BrokerError

    config = BrokerConfig(
        listeners={"default": ListenerConfig(bind=f"127.0.0.1:{port}")},
        plugins={"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    )
    broker = Broker(config)
    try:
        await broker.start()
    except (AMQTTError, BrokerError, OSError) as error:
        _say(" ".join(str(error).split()))
        return
    _say(_READY)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)  # only its end makes it readable
    await ended.wait()
    await broker.shutdown()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Serve on the port of the first argument until standard input ends."""
    # It logs every error of a closing socket; whoever needs a log needs mosquitto.
    logging.disable(logging.CRITICAL)
    asyncio.run(_serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()

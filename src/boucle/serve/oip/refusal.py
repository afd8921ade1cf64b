"""Why a request was not answered, in a form that both wires can say."""

from typing import ClassVar

from boucle.errors import BoucleError

__all__ = [
    "Away",
    "Busy",
    "Malformed",
    "NoSuchThing",
    "NotAllowed",
    "Refusal",
    "TooLarge",
    "TooLate",
    "Unfit",
]


class Refusal(BoucleError):
    """A request that gets an error for an answer; the server goes on."""

    status: ClassVar[int] = 500
    """Of HTTP."""
    rpc: ClassVar[str] = "INTERNAL"
    """The name of gRPC's status code."""
    headers: ClassVar[tuple[tuple[str, str], ...]] = ()


class Away(Refusal):
    """What answers is away for a moment: a model's process that is being started (the code of the error)."""

    retryable = True
    status, rpc = 503, "UNAVAILABLE"
    headers = (("retry-after", "1"),)


class Unfit(Refusal):
    """The model's own code refuses these rows (B643)."""

    status, rpc = 400, "INVALID_ARGUMENT"


class Malformed(Refusal):
    """What was asked cannot be understood, or does not fit the model (B670)."""

    status, rpc = 400, "INVALID_ARGUMENT"

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__("B670", what, where=where, why=why, fix=fix)


class NoSuchThing(Refusal):
    """A model, a version or a path that is not here (B671)."""

    status, rpc = 404, "NOT_FOUND"

    def __init__(self, what: str, *, fix: str = "") -> None:
        super().__init__("B671", what, fix=fix)


class Busy(Refusal):
    """More requests wait than may (B672): try again in a second."""

    retryable = True
    status, rpc = 429, "RESOURCE_EXHAUSTED"
    headers = (("retry-after", "1"),)

    def __init__(self, waiting: int) -> None:
        super().__init__("B672", f"{waiting} requests are waiting already", fix="try again in a second")


class TooLate(Refusal):
    """The deadline passed before there was an answer (B673)."""

    retryable = True
    status, rpc = 504, "DEADLINE_EXCEEDED"

    def __init__(self, seconds: float) -> None:
        fix = "ask for fewer rows at once, or wait longer"
        super().__init__("B673", f"no answer within {seconds:g} s", fix=fix)


class NotAllowed(Refusal):
    """Who asks is not known (B674)."""

    status, rpc = 401, "UNAUTHENTICATED"
    headers = (("www-authenticate", 'Basic realm="boucle"'),)

    def __init__(self) -> None:
        super().__init__("B674", "who asks?", fix="send Authorization: Basic … of a user of this server")


class TooLarge(Refusal):
    """A body larger than the server takes (B675)."""

    status, rpc = 413, "RESOURCE_EXHAUSTED"

    def __init__(self, most: int) -> None:
        what = f"a request may have {most:,} bytes".replace(",", " ")
        super().__init__("B675", what, fix="ask in several requests, or send tensors as binary data")

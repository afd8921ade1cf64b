"""Everything that can go wrong, said in a way that teaches.

    BoucleError                 code, what, where, why, fix
    ├── DeclarationError        product files are wrong; carries *all* problems, with file and line
    ├── MissingExtra            a driver is not installed; says the command that installs it
    ├── Unavailable             a server is absent or gone; retrying later helps
    ├── ContractBroken          a payload is not what its contract promised; goes to quarantine
    ├── PositionLost            the place to resume from is no longer there
    ├── SignatureMismatch       a model was given other columns than it was trained on
    └── CommandRefused          the guard, the PLC or the MES said no

A new class is only added for a caller that acts differently on it.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from msgspec import Struct

__all__ = [
    "BoucleError",
    "CommandRefused",
    "ContractBroken",
    "DeclarationError",
    "MissingExtra",
    "PositionLost",
    "Problem",
    "SignatureMismatch",
    "Unavailable",
    "near",
]


class BoucleError(Exception):
    """An error that says what happened, where, why, and how to fix it."""

    retryable: ClassVar[bool] = False

    def __init__(self, code: str, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        self.code, self.what, self.where, self.why, self.fix = code, what, where, why, fix
        super().__init__(code, what)

    def __str__(self) -> str:
        """One line for a log, the fix last: `B204 file:31: what: why. Fix: …`."""
        head = f"{self.code} {self.where}: {self.what}" if self.where else f"{self.code} {self.what}"
        head = f"{head}: {self.why}" if self.why else head
        return f"{head.rstrip('.')}. Fix: {self.fix}" if self.fix else head


class Problem(Struct, frozen=True):
    """One mistake in a declaration, as `boucle check` prints it."""

    code: str
    what: str
    file: str
    line: int
    why: str = ""
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.code} {self.file}:{self.line}: {self.what}"
        if self.why:
            text += f"\n    why: {self.why}"
        if self.fix:
            text += f"\n    fix: {self.fix}"
        return text


class DeclarationError(BoucleError):
    """The product files are wrong; every problem is listed, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        super().__init__(
            first.code, first.what + more, where=f"{first.file}:{first.line}", why=first.why, fix=first.fix
        )


class MissingExtra(BoucleError):
    """A driver that this address or setting needs is not installed."""

    def __init__(self, needed_by: str, package: str, extra: str) -> None:
        super().__init__(
            "B110",
            f"{needed_by} needs the package {package!r}, which is not installed",
            fix=f"pip install 'boucle[{extra}]'",
        )


class Unavailable(BoucleError):
    """A server is absent or went away; the loop goes on and retries."""

    retryable = True


class ContractBroken(BoucleError):
    """A payload or a row is not what its contract promised."""


class PositionLost(BoucleError):
    """The position to resume from was removed (retention) or never existed."""


class SignatureMismatch(BoucleError):
    """A model was given other columns or types than its signature says."""


class CommandRefused(BoucleError):
    """The guard, the PLC or the MES refused a command; never retried as it stands."""


def near(name: str, known: Iterable[str], otherwise: str = "remove it") -> str:
    """How to mend a name that is not known: the nearest that is, all of them, or `otherwise` where there is none.

    >>> near("presure", ["pressure", "speed"])
    'did you mean "pressure"?'
    """
    import difflib

    names = list(known)
    found = difflib.get_close_matches(name, names, n=1)
    if found:
        return f'did you mean "{found[0]}"?'
    return f"known: {', '.join(names)}" if names else otherwise

"""One alert when something about a model goes wrong, one more when it is well again."""

import time
from collections.abc import Callable
from typing import Any

__all__ = ["Alerts", "Tell"]

Tell = Callable[[str, str, dict[str, str], dict[str, Any]], None]
"""(kind, severity, sentence per language, evidence)."""

_QUIET = 1.0
"""Seconds without a repetition after which something is over: a model at its deadline's edge would tell every Block."""

_LASTING = frozenset({"registry", "refused", "disk", "held", "disagrees", "latency", "volume", "cost"})
"""Troubles that last until whoever met them says otherwise, however seldom they are met."""

_SAYS = {
    "deadline": ("it did not answer in time", "il n'a pas répondu à temps"),
    "queue": ("earlier Blocks still wait for it", "des blocs antérieurs l'attendent encore"),
    "failed": ("it failed", "il a échoué"),
    "not_finite": ("it gave no number", "il n'a pas donné de nombre"),
    "unavailable": ("it could not be loaded", "il n'a pas pu être chargé"),
    "signature": ("the rows have other columns", "les lignes ont d'autres colonnes"),
    "null_features": ("numbers it needs are missing", "des nombres dont il a besoin manquent"),
    "registry": ("the registry cannot be read", "le registre ne peut être lu"),
    "refused": ("the new version is refused", "la nouvelle version est refusée"),
    "disk": ("the disk takes no change of version", "le disque n'accepte pas de changement de version"),
    "shadow": ("the shadow failed", "le modèle fantôme a échoué"),
    "disagrees": (
        "the shadow {shadow} disagrees with {acting} on {share} % of {rows} rows, {limit} % are allowed",
        "le fantôme {shadow} contredit {acting} sur {share} % de {rows} lignes, {limit} % sont admis",
    ),
    "held": (
        "{version} is champion but is held back, in the shadow it disagreed too often",
        "{version} est champion mais retenu, il s'est trop souvent contredit dans l'ombre",
    ),
    "latency": (
        "its p95 latency is {value} ms, at most {high} ms is {because}",
        "sa latence p95 est de {value} ms, au plus {high} ms est {because}",
    ),
    "volume": (
        "{value} rows were scored in {window} s, {low} to {high} are {because}",
        "{value} lignes évaluées en {window} s, {low} à {high} est {because}",
    ),
    "cost": (
        "1000 predictions cost {value} {currency}, at most {high} is {because}",
        "1000 prédictions coûtent {value} {currency}, au plus {high} est {because}",
    ),
}  # fmt: skip
_WORDS = {"usual": "habituel", "declared": "déclaré"}


class Alerts:
    """Tells each trouble once, until it was quiet for a second."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._on: dict[str, float] = {}
        self._said: dict[str, tuple[str, str]] = {}
        self.tell: Tell | None = None

    def __bool__(self) -> bool:
        return bool(self._on)

    @property
    def on(self) -> list[str]:
        """The troubles there are now."""
        return list(self._on)

    def trouble(self, reason: str, **evidence: Any) -> None:
        """It goes wrong, now. What its sentence names must be in the evidence."""
        new = reason not in self._on
        self._on[reason] = time.monotonic()
        if not new:
            return
        english, french = self._said[reason] = _said(reason, evidence)
        if self.tell is not None:
            says = {
                "en": f"Model of {self._step}: {english}.",
                "fr": f"Modèle de {self._step} : {french}.",
            }
            self.tell("model_trouble", "warning", says, {"reason": reason, **evidence})

    def quiet(self) -> None:
        """Rows were scored: what was said of rows and has been quiet for a second is over."""
        now = time.monotonic()
        self.well(
            *(one for one, last in list(self._on.items()) if one not in _LASTING and now - last > _QUIET)
        )

    def well(self, *reasons: str) -> None:
        """These are over."""
        for reason in reasons:
            if self._on.pop(reason, None) is not None and self.tell is not None:
                english, french = self._said[reason]
                says = {
                    "en": f"Model of {self._step}: well again (before: {english}).",
                    "fr": f"Modèle de {self._step} : rétabli (avant : {french}).",
                }
                self.tell("model_well", "info", says, {"reason": reason})


def _said(reason: str, evidence: dict[str, Any]) -> tuple[str, str]:
    english, french = _SAYS[reason]
    told = {name: _number(value) if isinstance(value, float) else value for name, value in evidence.items()}
    en = english.format(**told)
    words = {name: _WORDS.get(str(value), value) for name, value in told.items()}
    fr = french.format(**{
        name: str(value).replace(".", ",") if isinstance(evidence[name], float) else value
        for name, value in words.items()
    })  # fmt: skip
    return en, fr


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

"""Drift in one sentence, English and French, with its numbers."""

from collections.abc import Sequence

from boucle.drift.change.compare import Found

__all__ = ["say_concept", "say_data"]


def say_data(column: str, found: Found, *, key: Sequence[str], drifted: bool) -> dict[str, str]:
    """What became of the distribution of a column."""
    name = "/".join([*key, column])
    if not drifted:
        return {"en": f"{name}: as in the reference.", "fr": f"{name} : comme dans la référence."}
    if found.kind == "missing":
        share = f"{100 * found.effect:.0f}"
        return {
            "en": f"{name}: the share of missing values moved by {share} points.",
            "fr": f"{name} : la part de valeurs manquantes a bougé de {share} points.",
        }
    if found.shift is None:
        share = f"{100 * found.effect:.0f}"
        return {
            "en": f"{name}: {share} % of the rows have other categories than in the reference.",
            "fr": f"{name} : {share} % des lignes ont d'autres catégories que dans la référence.",
        }
    shift, effect = f"{found.shift:+.3g}", f"{found.effect:.2f}"
    return {
        "en": f"{name}: the distribution moved (mean {shift}, effect {effect}).",
        "fr": f"{name} : la distribution a bougé (moyenne {_french(shift)}, effet {_french(effect)}).",
    }


def say_concept(column: str, *, key: Sequence[str], before: float, after: float) -> dict[str, str]:
    """What became of an error over time."""
    name, was, now = "/".join([*key, column]), f"{before:.3g}", f"{after:.3g}"
    return {
        "en": f"{name}: the error went from {was} to {now}; the relation the model learned may no longer hold.",
        "fr": f"{name} : l'erreur est passée de {_french(was)} à {_french(now)} ; "
        "la relation apprise par le modèle ne tient peut-être plus.",
    }


def _french(number: str) -> str:
    return number.replace(".", ",")

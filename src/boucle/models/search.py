"""A search for good parameters with a bound on trials and seconds: Optuna where it is installed, random otherwise."""

import importlib.util
import time
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from boucle.product.training import SearchSpec

__all__ = ["Trial", "search"]


class Trial(Struct, frozen=True):
    """One try: its parameters and how good they were (higher is better)."""

    parameters: dict[str, Any]
    score: float


def search(
    spec: SearchSpec,
    space: Mapping[str, list[Any]],
    try_it: Callable[[dict[str, Any]], float],
    seed: int,
    told: Callable[[int, int, float], None],
) -> tuple[list[Trial], str]:
    """Trials in the order they were made, and what chose them; `told` hears (done, of, best) after each.

    At least one is made, whatever the seconds. With `trials` alone the same seed makes the same trials; a bound in
    seconds depends on the machine, so the chosen parameters are recorded and never searched again.
    """
    made: list[Trial] = []
    end = None if spec.seconds is None else time.monotonic() + spec.seconds

    def one(parameters: dict[str, Any]) -> float:
        made.append(Trial(parameters, try_it(parameters)))
        told(len(made), spec.trials, max(trial.score for trial in made))
        return made[-1].score

    if importlib.util.find_spec("optuna"):
        _by_optuna(spec, space, one, seed, end)
        return made, "optuna, TPE"
    from sklearn.model_selection import ParameterSampler

    size = 1
    for values in space.values():
        size *= len(values)
    for parameters in ParameterSampler(dict(space), min(spec.trials, size), random_state=seed):
        one(dict(parameters))
        if end is not None and time.monotonic() >= end:
            break
    return made, "random"


def _by_optuna(
    spec: SearchSpec,
    space: Mapping[str, list[Any]],
    one: Callable[[dict[str, Any]], float],
    seed: int,
    end: float | None,
) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        for _ in range(spec.trials):
            trial = study.ask()
            chosen = {name: trial.suggest_categorical(name, values) for name, values in space.items()}
            study.tell(trial, one(chosen))
            if end is not None and time.monotonic() >= end:
                break
    finally:
        optuna.logging.set_verbosity(before)

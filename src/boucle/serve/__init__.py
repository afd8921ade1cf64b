"""Score in time: a model as a step of the path, its versions on trial, and models served over the wire."""

from boucle.serve.score import Score
from boucle.serve.trial import Trial

__all__ = ["Score", "Trial"]

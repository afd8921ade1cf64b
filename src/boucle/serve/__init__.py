"""Score in time: a model as a step of the path."""

from boucle.serve.score import Score

__all__ = ["Score"]

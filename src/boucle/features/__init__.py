"""Features as of a moment: what was known then, and nothing else."""

from boucle.features.asof import as_of
from boucle.features.source import DataVersion, Source
from boucle.features.view import FeatureView, Label

__all__ = ["DataVersion", "FeatureView", "Label", "Source", "as_of"]

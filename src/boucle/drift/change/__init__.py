"""Did the data change, or what they mean? Columns against a reference, and errors over time."""

from boucle.drift.change.columns import DataDrift
from boucle.drift.change.concept import ConceptDrift

__all__ = ["ConceptDrift", "DataDrift"]

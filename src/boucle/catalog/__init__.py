"""The catalog: what exists, and where each row came from."""

from boucle.catalog.lineage import Column, Dataset, Lineage, Run, Written, dataset, events, table

__all__ = ["Column", "Dataset", "Lineage", "Run", "Written", "dataset", "events", "table"]

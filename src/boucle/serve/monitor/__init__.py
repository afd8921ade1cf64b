"""How well a model does: measured when labels come, estimated until then, and held to what is usual."""

from boucle.serve.monitor.performance import Performance

__all__ = ["Performance"]

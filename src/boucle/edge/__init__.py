"""Less data, sooner: waveforms reduced beside the machine to one row per sensor and second."""

from typing import TYPE_CHECKING

from boucle.lazily import lazily

if TYPE_CHECKING:
    from boucle.edge.orders import Orders
    from boucle.edge.reduce import EVENTS, Reduce
    from boucle.edge.resample import Resample
    from boucle.edge.waveform import Waveform

__all__ = ["EVENTS", "Orders", "Reduce", "Resample", "Waveform"]

# SciPy's filters and splines take a second to import, and a press does not use them.
_HOMES = {
    "EVENTS": "reduce",
    "Orders": "orders",
    "Reduce": "reduce",
    "Resample": "resample",
    "Waveform": "waveform",
}
__getattr__ = lazily(__name__, _HOMES)

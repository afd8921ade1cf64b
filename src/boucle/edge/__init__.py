"""Less data, sooner: waveforms reduced beside the machine to one row per sensor and second."""

from boucle.edge.orders import Orders
from boucle.edge.reduce import EVENTS, Reduce
from boucle.edge.resample import Resample
from boucle.edge.waveform import Waveform

__all__ = ["EVENTS", "Orders", "Reduce", "Resample", "Waveform"]

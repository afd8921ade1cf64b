"""Did the sensor change, the machine, or only the way it is run?"""

from boucle.drift.attribute import VERDICT, Attribute

__all__ = ["VERDICT", "Attribute"]

"""boucle closes the loop from a sensor or a transaction to an action, and runs it like a product.

Importing this package loads no driver and no numeric library: each room imports what it
needs when it is first used, so that `import boucle` stays under 50 ms.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]

"""Compile a numeric loop to machine code, once per machine."""

from typing import Any

__all__ = ["compiled"]


def compiled(function: Any, *, reorder: bool = False) -> Any:
    """`function` compiled by numba; it gives up the interpreter's lock while it runs.

    The result is kept beside the package, or in the user's cache folder; where neither can be written
    it is compiled anew in each process. With `reorder` sums may be taken in any order (faster), though
    always in the same one on one machine.
    """
    import numba

    fast = {"reassoc", "nsz", "arcp", "contract"} if reorder else False
    try:
        return numba.njit(function, nogil=True, cache=True, fastmath=fast)
    except RuntimeError:  # no place for the cache
        return numba.njit(function, nogil=True, fastmath=fast)

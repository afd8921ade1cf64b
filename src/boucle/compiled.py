"""Compile a numeric loop to machine code, once per machine."""

from typing import Any

__all__ = ["compiled"]


def compiled(function: Any, *, reorder: bool = False, inline: bool = False) -> Any:
    """`function` compiled by numba; it gives up the interpreter's lock while it runs.

    The result is kept beside the package, or in the user's cache folder; where neither can be written
    it is compiled anew in each process. With `reorder` sums may be taken in any order (faster), though
    always in the same one on one machine. `inline` puts it into each compiled caller: handing over an array costs
    more than many a loop does with it.
    """
    import numba

    fast = {"reassoc", "nsz", "arcp", "contract"} if reorder else False
    how: dict[str, Any] = {"nogil": True, "fastmath": fast, "inline": "always" if inline else "never"}
    try:
        return numba.njit(function, cache=True, **how)
    except RuntimeError:  # no place for the cache
        return numba.njit(function, **how)

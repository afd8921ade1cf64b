"""The inner loops of the SQL endpoint, compiled: columns side by side become rows one after another.

A column is bytes with a start and a length for each row (-1: null), or bytes of one width without nulls. The rows
are written column by column; `at` holds where each row stands, and moves on.
"""

import numpy as np
from numpy.typing import NDArray

from boucle.compiled import compiled

__all__ = ["arrays", "framed", "heads", "numerics", "put", "put_even"]

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
Lengths = NDArray[np.int32]


@compiled
def heads(out: Bytes, at: Places, ends: Places, tag: int, columns: int) -> None:
    """Begin each row: its kind, its length, its number of columns."""
    for row in range(len(at)):
        place = at[row]
        length = ends[row] - place - 1
        out[place] = tag
        out[place + 1] = (length >> 24) & 255
        out[place + 2] = (length >> 16) & 255
        out[place + 3] = (length >> 8) & 255
        out[place + 4] = length & 255
        out[place + 5] = (columns >> 8) & 255
        out[place + 6] = columns & 255
        at[row] = place + 7


@compiled
def put(out: Bytes, at: Places, data: Bytes, starts: Places, lengths: Lengths) -> None:
    """One more value to each row: its length, and as many bytes."""
    for row in range(len(at)):
        place = at[row]
        length = lengths[row]
        out[place] = (length >> 24) & 255
        out[place + 1] = (length >> 16) & 255
        out[place + 2] = (length >> 8) & 255
        out[place + 3] = length & 255
        place += 4
        start = starts[row]
        for index in range(length):
            out[place + index] = data[start + index]
        at[row] = place + max(length, 0)


@compiled
def put_even(out: Bytes, at: Places, data: Bytes, width: int) -> None:
    """One more value to each row, all of one width and none null."""
    for row in range(len(at)):
        place = at[row]
        out[place] = 0
        out[place + 1] = 0
        out[place + 2] = 0
        out[place + 3] = width
        place += 4
        start = row * width
        for index in range(width):
            out[place + index] = data[start + index]
        at[row] = place + width


@compiled
def framed(out: Bytes, data: Bytes, starts: Places, lengths: Lengths, tag: int) -> None:
    """Each value as a message of its own: its kind, its length with the length itself, its bytes."""
    place = 0
    for row in range(len(starts)):
        length = lengths[row] + 4
        out[place] = tag
        out[place + 1] = (length >> 24) & 255
        out[place + 2] = (length >> 16) & 255
        out[place + 3] = (length >> 8) & 255
        out[place + 4] = length & 255
        place += 5
        for index in range(lengths[row]):
            out[place + index] = data[starts[row] + index]
        place += lengths[row]


@compiled
def arrays(
    out: Bytes, starts: Places, elements: Bytes, begins: Places, counts: Lengths, nulls: Bytes, oid: int
) -> None:
    """Lists as PostgreSQL's one-dimensional arrays: a head, then the elements, each already with its length.

    `begins` says where in `elements` the elements of each row begin, and has the end of the last row as well.
    """
    for row in range(len(counts)):
        place, count = starts[row], counts[row]
        for index in range(20):
            out[place + index] = 0
        out[place + 7] = nulls[row]
        out[place + 8] = (oid >> 24) & 255
        out[place + 9] = (oid >> 16) & 255
        out[place + 10] = (oid >> 8) & 255
        out[place + 11] = oid & 255
        if count > 0:
            out[place + 3] = 1
            out[place + 12] = (count >> 24) & 255
            out[place + 13] = (count >> 16) & 255
            out[place + 14] = (count >> 8) & 255
            out[place + 15] = count & 255
            out[place + 19] = 1
            place += 20
            for index in range(begins[row], begins[row + 1]):
                out[place] = elements[index]
                place += 1


@compiled
def numerics(values: Places, scale: int, out: Bytes, stride: int) -> Lengths:  # noqa: C901, PLR0912 - one loop, compiled as a whole
    """Decimals of at most 18 digits (value times 10**scale) as PostgreSQL's numeric; gives their lengths.

    A numeric is its count of base-10000 digits, the weight of the first, the sign, the scale, and the digits.
    """
    lengths = np.empty(len(values), dtype=np.int32)
    unit = 1
    for _ in range(scale):
        unit *= 10
    groups = (scale + 3) // 4
    digits = np.zeros(16, dtype=np.int64)
    for row in range(len(values)):
        value = values[row]
        size = abs(value)
        whole, rest = size // unit, size % unit
        count = 0
        while whole > 0:
            digits[count] = whole % 10000
            whole //= 10000
            count += 1
        for index in range(count // 2):
            kept = digits[index]
            digits[index] = digits[count - 1 - index]
            digits[count - 1 - index] = kept
        weight = count - 1
        power, left = unit, scale
        for _ in range(groups):
            if left >= 4:
                power //= 10000
                digit = rest // power
                rest %= power
            else:
                digit = rest
                for _ in range(4 - left):
                    digit *= 10
            left -= 4
            if count == 0 and digit == 0:
                weight -= 1
            else:
                digits[count] = digit
                count += 1
        while count > 0 and digits[count - 1] == 0:
            count -= 1
        if count == 0:
            weight = 0
        place = row * stride
        head = (count, weight & 0xFFFF, 0x4000 if value < 0 else 0, scale)
        for index in range(4):
            out[place] = (head[index] >> 8) & 255
            out[place + 1] = head[index] & 255
            place += 2
        for index in range(count):
            out[place] = (digits[index] >> 8) & 255
            out[place + 1] = digits[index] & 255
            place += 2
        lengths[row] = 8 + 2 * count
    return lengths

"""The loops of `key_counts`, compiled: a hash table in memory, sorted runs, and their merging."""

from typing import Any

import numpy as np

from boucle.compiled import compiled

__all__ = [
    "accumulate",
    "fill_filter",
    "find",
    "find_or_insert",
    "gather",
    "hash_texts",
    "look_up",
    "merge_runs",
    "mix",
    "rehash",
    "union_size",
]


# A slot is one row of four numbers: the key, its second half, how often it was seen since it came into memory
# (0: the slot is free), and how often before. One cache line holds two.
_OWN, _BASE = 2, 3
_TAKEN = np.uint64(2**63)
"""Set in `_OWN` of a slot that was taken and not yet counted."""


def mix(values: Any) -> Any:
    """SplitMix64's finalizer: every 64-bit number to another, none to the same."""
    mixed = np.empty(len(values), np.uint64)
    for row in range(len(values)):
        value = values[row] + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed[row] = value ^ (value >> np.uint64(31))
    return mixed


def hash_texts(data: Any, offsets: Any, first: Any, second: Any) -> None:
    """Two hashes of the bytes of each text (FNV-1a's shape), with different primes; to be mixed by the caller."""
    for row in range(len(offsets) - 1):
        one, two = np.uint64(0xCBF29CE484222325), np.uint64(0x84222325CBF29CE4)
        for at in range(offsets[row], offsets[row + 1]):
            byte = np.uint64(data[at])
            one = (one ^ byte) * np.uint64(0x100000001B3)
            two = (two + byte + np.uint64(1)) * np.uint64(0xD6E8FEB86659FD93)
            two ^= two >> np.uint64(32)
        first[row], second[row] = one, two


def find_or_insert(table: Any, keys: Any, keys2: Any, slots: Any) -> int:
    """Each key's slot, taken when it has none; slots of new keys come as -1 - slot, once. How many are new."""
    mask = np.uint64(len(table) - 1)
    touched = np.uint64(0)
    for row in range(len(keys)):  # independent reads, so that the memory answers them side by side
        touched += table[np.int64(keys[row] & mask), _OWN]
    new = 0
    for row in range(len(keys)):
        at = np.int64(keys[row] & mask)
        while table[at, _OWN] != 0 and not (table[at, 0] == keys[row] and table[at, 1] == keys2[row]):
            at = np.int64(np.uint64(at + 1) & mask)
        if table[at, _OWN] == 0:
            table[at, 0], table[at, 1], table[at, _OWN], table[at, _BASE] = keys[row], keys2[row], _TAKEN, 0
            slots[row] = -1 - at
            new += 1
        else:
            slots[row] = at
    slots[0] += np.int64(touched & np.uint64(0))  # what was touched is used, so that the reads stay
    return new


def accumulate(table: Any, slots: Any, weights: Any, before: Any, told: Any) -> None:
    """Count each row in; `before` gets how often its key was seen, `told` gains distinct, repeated, total."""
    for row in range(len(slots)):
        at = slots[row]
        counted = np.int64(table[at, _OWN] & ~_TAKEN)
        seen = counted + np.int64(table[at, _BASE])
        before[row] = seen
        after = seen + weights[row]
        if seen == 0:
            told[0] += 1
        if seen < 2 <= after:
            told[1] += 1
        told[2] += weights[row]
        table[at, _OWN] = np.uint64(counted + weights[row])


def rehash(table: Any, wide: Any) -> None:
    """Put every taken slot into a larger table."""
    mask = np.uint64(len(wide) - 1)
    for slot in range(len(table)):
        if table[slot, _OWN] != 0:
            at = np.int64(table[slot, 0] & mask)
            while wide[at, _OWN] != 0:
                at = np.int64(np.uint64(at + 1) & mask)
            for part in range(4):
                wide[at, part] = table[slot, part]


def find(table: Any, keys: Any, keys2: Any, found: Any) -> None:
    """Add to `found` how often a table counted each key since it came into memory."""
    mask = np.uint64(len(table) - 1)
    for row in range(len(keys)):
        at = np.int64(keys[row] & mask)
        while table[at, _OWN] != 0:
            if table[at, 0] == keys[row] and table[at, 1] == keys2[row]:
                found[row] += np.int64(table[at, _OWN])
                break
            at = np.int64(np.uint64(at + 1) & mask)


def gather(table: Any) -> tuple[Any, Any, Any]:
    """The keys of a table, their second halves, and how often each was counted."""
    size = 0
    for slot in range(len(table)):
        size += table[slot, _OWN] != 0
    first, second, count = np.empty(size, np.uint64), np.empty(size, np.uint64), np.empty(size, np.int64)
    at = 0
    for slot in range(len(table)):
        if table[slot, _OWN] != 0:
            first[at], second[at], count[at] = table[slot, 0], table[slot, 1], np.int64(table[slot, _OWN])
            at += 1
    return first, second, count


def filter_bits(key: Any) -> Any:
    """The four bits that a key has in its word of a filter."""
    mixed = key * np.uint64(0x9E3779B97F4A7C15)
    one, low = np.uint64(1), np.uint64(63)
    return (
        (one << (mixed >> np.uint64(58)))
        | (one << ((mixed >> np.uint64(52)) & low))
        | (one << ((mixed >> np.uint64(46)) & low))
        | (one << ((mixed >> np.uint64(40)) & low))
    )


def fill_filter(keys: Any, words: Any) -> None:
    """Set the bits of every key."""
    mask = np.uint64(len(words) - 1)
    for row in range(len(keys)):
        words[np.int64(keys[row] & mask)] |= filter_bits(keys[row])


def look_up(
    first: Any, second: Any, count: Any, fences: Any, words: Any, keys: Any, keys2: Any, found: Any
) -> None:
    """Add to `found` how often a sorted run has each key.

    `words` is its filter, `fences` are where the keys of each first bits begin.
    """
    mask = np.uint64(len(words) - 1)
    maybe = np.empty(len(keys), np.int64)
    some = 0
    for row in range(len(keys)):  # without a branch, so that the memory answers many reads side by side
        bits = filter_bits(keys[row])
        maybe[some] = row
        some += (words[np.int64(keys[row] & mask)] & bits) == bits
    shift = np.uint64(64) - np.uint64(np.log2(len(fences) - 1))
    for row in maybe[:some]:
        wanted = keys[row]
        bucket = np.int64(wanted >> shift)
        low, high = fences[bucket], fences[bucket + 1]
        while low < high:
            middle = (low + high) >> 1
            if first[middle] < wanted:
                low = middle + 1
            else:
                high = middle
        # The first half of a key may be shared by chance.
        while low < len(first) and first[low] == wanted:
            if second[low] == keys2[row]:
                found[row] += count[low]
                break
            low += 1


def union_size(first: Any, second: Any, other: Any, other2: Any) -> int:
    """How many keys two sorted runs have together."""
    one, two, size = 0, 0, 0
    while one < len(first) and two < len(other):
        if first[one] == other[two] and second[one] == other2[two]:
            one += 1
            two += 1
        elif first[one] < other[two] or (first[one] == other[two] and second[one] < other2[two]):
            one += 1
        else:
            two += 1
        size += 1
    return int(size + len(first) - one + len(other) - two)


def merge_runs(first: Any, second: Any, count: Any, other: Any, into: Any) -> None:
    """Two sorted runs as one (`other` and `into`: keys, second halves, counts); memory-mapped ones are streamed."""
    other1, other2, other3 = other
    to1, to2, to3 = into
    one, two = 0, 0
    for at in range(len(to1)):
        if two >= len(other1):
            mine, its = True, False
        elif one >= len(first):
            mine, its = False, True
        else:
            same = first[one] == other1[two]
            its = other1[two] < first[one] or (same and other2[two] <= second[one])
            mine = first[one] < other1[two] or (same and second[one] <= other2[two])
        if mine:
            to1[at], to2[at] = first[one], second[one]
        else:
            to1[at], to2[at] = other1[two], other2[two]
        total = np.int64(0)
        if mine:
            total += count[one]
            one += 1
        if its:
            total += other3[two]
            two += 1
        to3[at] = total


mix = compiled(mix)
hash_texts = compiled(hash_texts)
find_or_insert = compiled(find_or_insert)
accumulate = compiled(accumulate)
rehash = compiled(rehash)
find = compiled(find)
gather = compiled(gather)
filter_bits = compiled(filter_bits, inline=True)
fill_filter = compiled(fill_filter)
look_up = compiled(look_up)
union_size = compiled(union_size)
merge_runs = compiled(merge_runs)

"""Keyed randomness: numbers, generators, orders and the train/test split as functions of a key.

There is no global state. The same key gives the same outcome on every machine, in every process and at any moment of a run, so
problem i, document i or row i of a pass can be made without its predecessors. Token draws use keys without a generator:
`rollout/keyed_random.py`.
"""

from __future__ import annotations

import hashlib
import random
from functools import lru_cache

# One key in eight is held out for the test split.
HELD_OUT_ONE_IN = 8


def keyed_number(key: str) -> int:
    """Return a number below 2^64 that depends on `key` alone (BLAKE2b)."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def keyed_random(*parts: int | str) -> random.Random:
    """Return a generator seeded by `parts` alone, on every machine and Python version that keeps `random`'s algorithms."""
    return random.Random(keyed_number("/".join(map(str, parts))))


def is_held_out_key(key: str) -> bool:
    """True if the key belongs to the test split: one key in `HELD_OUT_ONE_IN`."""
    return keyed_number(key) % HELD_OUT_ONE_IN == 0


def row_of_passes(key: str, place: int, n_rows: int, digest_size: int = 8) -> int:
    """Return which of `n_rows` rows is number `place` of an endless sequence of passes, each with its own order.

    A pass sorts the rows by BLAKE2b hashes of `digest_size` bytes. Callers keep their `digest_size`, because another size gives
    another order, and the order is part of what a model was trained on.
    """
    turn, number = divmod(place, n_rows)
    return _order(f"{key}/{turn}", n_rows, digest_size)[number]


@lru_cache(maxsize=8)
def _order(key: str, size: int, digest_size: int) -> tuple[int, ...]:
    def hashed(number: int) -> bytes:
        return hashlib.blake2b(f"{key}/{number}".encode(), digest_size=digest_size).digest()

    return tuple(sorted(range(size), key=hashed))

"""Chance as a function of a key: numbers, generators, orders, and the wall between training and test.

Nothing here knows a global state. The same key gives the same outcome on every machine and in every process, at any moment of a
run, so that problem number i, document number i or row i of a pass can be asked for without all that come before it. Draws of
tokens have keys of their own, and no generator: `rollout/keyed_random.py`.
"""

from __future__ import annotations

import hashlib
import random
from functools import lru_cache

# One key in eight is held out.
HELD_OUT_ONE_IN = 8


def keyed_number(key: str) -> int:
    """A number below 2^64 that depends on `key` alone (BLAKE2b)."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def keyed_random(*parts: int | str) -> random.Random:
    """A generator that depends on `parts` alone, on every machine and Python version that keeps `random`'s algorithms."""
    return random.Random(keyed_number("/".join(map(str, parts))))


def is_held_out_key(key: str) -> bool:
    """Which side of the wall a key stands on: one in `HELD_OUT_ONE_IN` is held out."""
    return keyed_number(key) % HELD_OUT_ONE_IN == 0


def row_of_passes(key: str, place: int, n_rows: int, digest_size: int = 8) -> int:
    """Which of `n_rows` rows comes as number `place` of an endless sequence of passes, each in an order of its own.

    An order is that of BLAKE2b hashes of `digest_size` bytes; it stays what it was where a data set's order is part of what a
    model was trained on.
    """
    turn, number = divmod(place, n_rows)
    return _order(f"{key}/{turn}", n_rows, digest_size)[number]


@lru_cache(maxsize=8)
def _order(key: str, size: int, digest_size: int) -> tuple[int, ...]:
    def hashed(number: int) -> bytes:
        return hashlib.blake2b(f"{key}/{number}".encode(), digest_size=digest_size).digest()

    return tuple(sorted(range(size), key=hashed))

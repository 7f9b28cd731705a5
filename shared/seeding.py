"""Randomness that comes from a few keys alone, on any machine and in any order."""

import hashlib

import numpy as np


def seed_of(*keys: str | int) -> int:
    """A 63-bit seed from keys such as (run seed, site, round).

    >>> seed_of(0, "site-1", 3)
    6192289408902115767
    """
    digest = hashlib.sha256("\x1f".join(map(str, keys)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*keys: str | int) -> np.random.Generator:
    """NumPy's generator seeded by keys such as (run seed, site, round)."""
    return np.random.default_rng(seed_of(*keys))

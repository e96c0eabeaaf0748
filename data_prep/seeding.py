"""One rule for randomness: a generator is named by what it is for, never by when it is used."""

import zlib

import numpy as np


def rng_for(*keys):
    """A generator for fixed keys, e.g. `rng_for(seed, set_key, "person", 17)`; words count by their CRC-32."""
    numbers = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) for key in keys]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(numbers)))

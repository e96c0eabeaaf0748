"""What all tests share: one torch thread, and property tests that draw the same examples at every run."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; kernels and worker processes inherit it

from hypothesis import settings  # noqa: E402

settings.register_profile("repeatable", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("repeatable")

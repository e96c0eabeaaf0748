"""Which chapter begins next, and the processes that execute chapters: this one only waits, and hears Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from paul.experiments.workers import Workers

from .toc import Chapter


def _deaf() -> None:
    """Ctrl-C reaches every process of a terminal; the one that asked for chapters decides what becomes of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def executor(jobs: int) -> Iterator[Workers]:
    """For so many chapters at once. An error or an interrupt ends them, and with them their kernels."""
    pool = Workers(jobs, _deaf)
    try:
        yield pool
    except BaseException:
        pool.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def next_to_begin(waiting: Sequence[Chapter], running: Sequence[Chapter], jobs: int) -> Chapter | None:
    """The first waiting chapter that may begin: with room, when those that it comes after or waits for have ended, and
    not beside one that is to run alone."""
    if len(running) >= jobs or any(chapter.alone for chapter in running):
        return None
    unfinished = {chapter.slug for chapter in (*waiting, *running)}
    for chapter in waiting:
        if not unfinished & {*chapter.after, *chapter.waits} and not (chapter.alone and running):
            return chapter
    return None

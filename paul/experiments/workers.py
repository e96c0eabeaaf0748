"""Work given to executors: local processes that are replaced when one dies, and results as they end."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, parent_process
from threading import Thread

GRACE = 20.0  # seconds for a worker whose parent is gone to finish its step and save


def _outlive_nobody() -> None:
    """Ask this process to stop when its parent is gone, killed say; kill it when it has saved, or if it does not."""

    def watch() -> None:
        parent_process().join()
        os.kill(os.getpid(), signal.SIGTERM)  # a training notes it; whatever else is under way ends here
        until = time.monotonic() + GRACE
        while time.monotonic() < until and signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=watch, daemon=True).start()


def _begin(initializer) -> None:
    _outlive_nobody()
    if initializer:
        initializer()


class Workers(Executor):
    """A pool of spawned processes; one that lost a process, killed for its memory say, is replaced by a fresh one.

    What the broken pool was given fails with BrokenExecutor; what is submitted afterwards runs. The processes end with
    the one that made them, however that ends.
    """

    def __init__(self, workers: int, initializer=None):
        self._new = partial(ProcessPoolExecutor, workers, get_context("spawn"), _begin, (initializer,))
        self._pool = self._new()

    def submit(self, function, /, *arguments, **named):
        try:
            return self._pool.submit(function, *arguments, **named)
        except BrokenExecutor:
            # the pool has asked the others to stop, upon which a training saves and would go on to its next run
            self.kill()
            self._pool = self._new()
            return self._pool.submit(function, *arguments, **named)

    def kill(self) -> None:
        """End the processes at once, whatever they do."""
        for process in list((self._pool._processes or {}).values()):
            process.kill()

    def shutdown(self, wait=True, *, cancel_futures=False):
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


@contextmanager
def workers_executor(workers: int):
    """Processes, or None for one worker: then everything happens in this process.

    Raises:
        OSError: the system lends no semaphores.
    """
    if workers <= 1:
        yield None
        return
    try:
        pool = Workers(workers)
    except OSError as error:
        raise OSError(
            f"no processes can work together here ({error.strerror}): the system keeps semaphores in /dev/shm, which "
            "must be writable; workers=1 does without"
        ) from error
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def as_they_end(executor: Executor, function, items: list, retries: int):
    """Yield (item, function(item)) for every item as it ends; the first error ends all.

    Args:
        executor: any.
        function: picklable where the executor asks for it.
        items: hashable, each once.
        retries: how often what a broken pool left undone is given to the executor again.

    Raises:
        RuntimeError: the pool broke more often than that.
    """

    def submit(some):
        return {executor.submit(function, item): item for item in some}

    waiting = submit(items)
    try:
        while waiting:
            ended = wait(waiting, return_when=FIRST_COMPLETED).done
            if any(isinstance(future.exception(), BrokenExecutor) for future in ended):
                ended = wait(waiting).done  # a pool that loses a process ends all that it was given
            lost = []
            for future in ended:
                item = waiting.pop(future)
                if isinstance(future.exception(), BrokenExecutor):
                    lost.append(item)
                else:
                    yield item, future.result()
            if lost and not retries:
                raise RuntimeError(
                    "worker processes keep dying, perhaps killed by the system for lack of memory; "
                    "take fewer workers. Finished runs are kept: the same command goes on"
                )
            if lost:
                retries -= 1
                waiting.update(submit(lost))
    except BaseException:
        for future in waiting:
            future.cancel()
        raise

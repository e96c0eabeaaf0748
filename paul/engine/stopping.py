"""Being asked to stop, by Ctrl-C or SIGTERM, without losing the step in hand."""

from __future__ import annotations

import signal
import threading

from tqdm.auto import tqdm


class Stopped(KeyboardInterrupt):
    """A training that was asked to stop, has finished its step and is saved."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class StopRequest:
    """Notes the first SIGINT or SIGTERM between `listen` and `forget`; a second one stops at once.

    Args:
        announced: whether to say what happens next.

    Attributes:
        number: of the signal, 0 for none.
    """

    def __init__(self, announced: bool = True):
        self.number, self.announced, self._before = 0, announced, {}

    def listen(self) -> None:
        """Take the two signals over; only a process's main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)

    def forget(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _frame) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number
        if self.announced:
            tqdm.write("finishing this step and saving; once more stops at once", file=None)

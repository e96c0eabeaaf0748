"""The steps of one epoch, with the means of their losses, and what to say when one does not fit into the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from tqdm.auto import tqdm

from paul.engine.distributed import World


class Steps:
    """The batches of one epoch, and the means of their losses so far, read from the device every `every` steps."""

    def __init__(
        self,
        where: str,
        batches: Sequence[Tensor],
        bar: tqdm,
        every: int = 1,
        world: World = World(),
        after: Callable[[], None] = lambda: None,
    ):
        self.where, self.batches, self.bar, self.every, self.world, self.after = (
            where,
            batches,
            bar,
            every,
            world,
            after,
        )
        self.done = 0
        self.names: list[str] = []
        self.unread: list[Tensor] = []
        self.sums: list[float] = []
        self.count = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        while self.done < len(self.batches):
            yield self.batches[self.done]
            self.done += 1
            self.bar.update()
            self.after()

    def left(self) -> Sequence[Tensor]:
        """The batches that are still to come."""
        return self.batches[self.done :]

    def add(self, **losses: Tensor) -> None:
        """Note one step's losses.

        Raises:
            FloatingPointError: a loss is not finite; names epoch, step and loss.
        """
        self.names = list(losses)
        self.unread.append(torch.stack([value.detach() for value in losses.values()]))
        if len(self.unread) == self.every:
            self.bar.set_postfix({name: f"{mean:.3f}" for name, mean in self.means().items()}, refresh=False)

    def means(self) -> dict[str, float]:
        """Mean of each loss over the steps so far, and over ranks; raises as `add` does."""
        if self.unread:
            rows = (self.world.sum(torch.stack(self.unread)) / self.world.size).double().cpu()
            bad = (~rows.isfinite()).nonzero()
            if len(bad):
                step = int(bad[0, 0])
                names = [name for name, finite in zip(self.names, rows[step].isfinite()) if not finite]
                raise self.not_finite(self.count + step + 1, ", ".join(names))
            self.sums = (torch.tensor(self.sums or [0.0] * len(self.names), dtype=torch.float64) + rows.sum(0)).tolist()
            self.count += len(rows)
            self.unread = []
        return {name: total / self.count for name, total in zip(self.names, self.sums)}

    def not_finite(self, step: int, what: str) -> FloatingPointError:
        """What stops a run whose numbers have left the finite ones."""
        return FloatingPointError(
            f"{self.where}, step {step}: not finite: {what}. The last checkpoint is kept; lower "
            "the learning rate, or look at the images of this epoch"
        )

    def state_dict(self) -> dict:
        """Where in the epoch it is; plain data."""
        self.means()
        return {
            "index": torch.cat(list(self.batches)),
            "sizes": [len(batch) for batch in self.batches],
            "done": self.done,
            "names": self.names,
            "sums": self.sums,
            "count": self.count,
        }

    def load_state_dict(self, state: dict) -> None:
        self.batches = state["index"].split(state["sizes"])
        self.done, self.names, self.sums, self.count = (state[key] for key in ("done", "names", "sums", "count"))


@contextmanager
def within_memory(steps: Steps, option: str):
    """Say what helps when a step does not fit into the memory; the run's last checkpoint stays.

    Gradients summed over smaller batches would not be the same method: batch norm, cyclic ranking and the memories see
    the batch whole. Recomputed activations are.

    Raises:
        RuntimeError: out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if type(error) is RuntimeError and "allocate memory" not in str(error):
            raise
        reason = str(error).partition("\n")[0]
        raise RuntimeError(
            f"{steps.where}, step {steps.done + 1}: out of memory ({reason}). The same command with "
            "low_memory=True goes on from the last checkpoint, to the same result, more slowly; a smaller "
            f"{option} needs another folder, since it changes what is learned"
        ) from error

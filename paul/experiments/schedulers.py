"""Experiments on many machines: through a Dask scheduler, or as two arrays of Slurm jobs.

Every machine must see data, results and models under the same names (a shared file system) and run the same sources.
Any of them may die: a run goes on elsewhere from its last checkpoint, and a finished record is never computed again.
"""

from __future__ import annotations

import shlex
import sys
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path

from paul.experiments.specs import Spec


@contextmanager
def dask_executor(address: str):
    """The executor of a running Dask cluster, for `paul.experiments.runner.run_all`.

    A run whose worker dies is given to another one, as often as the scheduler's setting
    `distributed.scheduler.allowed-failures` says (3); a run's own error is not retried.

    Args:
        address: of the scheduler, such as tcp://10.0.0.1:8786.

    Raises:
        RuntimeError: dask.distributed is not installed, or runs kept killing their workers.
        OSError: no scheduler answers.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise RuntimeError(
            "a Dask executor needs dask.distributed: install paul-book[cluster], or use local processes"
        ) from error
    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(
            f"no Dask scheduler answers at {address}; start one with 'dask scheduler' and give the address "
            "that it prints"
        ) from error
    with client:
        executor = client.get_executor(pure=False)  # equal calls are still two runs when --fresh asks for it
        try:
            yield executor
        except KilledWorker as error:
            raise RuntimeError(
                f"{error.last_worker.address} and other workers died while they computed the same run: "
                "give them more memory (dask worker --memory-limit). Finished runs are kept"
            ) from error
        except CancelledError as error:
            raise RuntimeError(
                f"the scheduler at {address} is gone; runs under way end on their workers, and the same command goes on"
            ) from error
        finally:
            executor.shutdown(wait=False)


def array_of(indices: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2,5", as sbatch reads it."""
    ranges: list[list[int]] = []
    for index in sorted(indices):
        if ranges and index == ranges[-1][-1] + 1:
            ranges[-1][1:] = [index]
        else:
            ranges.append([index])
    return ",".join("-".join(map(str, ends)) for ends in ranges)


def slurm_script(name: str, indices: list[int], command: list[str], folder: Path, options: list[str]) -> Path:
    """Write folder/name.sbatch, a job array in which task i runs `command --task i`; returns its path.

    Args:
        name: of the job and of its logs.
        indices: tasks of the array.
        command: words after `python -m paul`, the same for every task.
        folder: for script and logs.
        options: of sbatch, such as --time=4:00:00 or --gres=gpu:1.
    """
    folder = Path(folder).absolute()
    header = [
        f"--job-name=paul-{name}",
        f"--array={array_of(indices)}",
        f'--output="{folder}/{name}-%a.log"',
        "--open-mode=append",
        "--requeue",
        "--signal=B:TERM@60",
        "--cpus-per-task=1",
        *options,
    ]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in header),
        "# One process with one thread a task. A minute before its time is over it saves and stops; submitted or",
        "# requeued again, it goes on from there.",
        "set -eu",
        "export OMP_NUM_THREADS=1",
        f"cd {shlex.quote(str(Path.cwd()))}",
        f'exec {shlex.join([sys.executable, "-m", "paul", *command])} --task "$SLURM_ARRAY_TASK_ID"',
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.sbatch"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def slurm_scripts(
    specs: list[Spec], missing: list[Spec], command: list[str], folder: Path, options: list[str]
) -> list[str]:
    """Write both arrays and return the commands that submit them: source models first, the runs after them.

    Args:
        specs: all runs that the command names, in its order; a task is a place in this list.
        missing: those to compute.
        command, folder, options: see `slurm_script`.
    """
    from paul.experiments.runner import sources_of

    sources = slurm_script(
        "sources", [specs.index(spec) for spec in sources_of(missing)], [*command, "--source-only"], folder, options
    )
    runs = slurm_script("runs", [specs.index(spec) for spec in missing], command, folder, options)
    # afterany, not afterok: a run whose source model is missing trains it, and the others wait for it
    return [
        f"sources=$(sbatch --parsable {shlex.quote(str(sources))})",
        f"sbatch --dependency=afterany:$sources {shlex.quote(str(runs))}",
    ]

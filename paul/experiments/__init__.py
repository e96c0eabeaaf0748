"""The study: rows, runs and their records, on this machine or many; and what it all costs.

`run_one`, `run_all`, `run_table` and the functions that load what they made are found here, and in `runner`.
"""

_RUNNER = (
    "evaluate_descriptor",
    "evaluate_model",
    "load_model",
    "load_runs",
    "needs_computing",
    "outcome_of",
    "run_all",
    "run_one",
    "run_table",
    "source_folder",
    "source_model",
    "sources_of",
    "target_folder",
    "trained",
    "trained_model",
    "trained_models",
    "workers_for",
)


def __getattr__(name: str):
    if name in _RUNNER:  # on demand: rows and profiles alone do not wait for torch
        from paul.experiments import runner

        return getattr(runner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

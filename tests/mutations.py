"""Mistakes planted into the sources, one at a time: the golden trajectories must notice each.

    python -m tests.mutations           plant all, say which were noticed, exit 1 when one was not
    ... --only NAME                     one of them

A mistake is planted into a copy of the package in a temporary folder, where the trajectory named with it is measured.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutation(NamedTuple):
    """What is planted: the text of a file that stands there once, and what takes its place."""

    file: str
    old: str
    new: str
    trajectory: str = "target/default"


MUTATIONS = {
    "PEDAL: a sign": Mutation(
        "losses.py", "loss = (all_sum / share).log().mean()", "loss = (share / all_sum).log().mean()"
    ),
    "PEDAL: s for s/2": Mutation("losses.py", "bank.mT, beta=-s / 2, alpha=s", "bank.mT, beta=-s, alpha=s"),
    "PEDAL: the gradient halved": Mutation("losses.py", ".mul_(s / share.numel())", ".mul_(s / 2 / share.numel())"),
    "PEDAL: the own entry kept": Mutation(
        "losses.py", 'expand(len(features), -1, 1), float("-inf"))', "expand(len(features), -1, 1), 0.0)"
    ),
    "PEDAL: one neighbour more": Mutation(
        "losses.py",
        "nearest, where = similarity.topk(min(k, bank.shape[1] - 1), dim=2)",
        "nearest, where = similarity.topk(min(k + 1, bank.shape[1] - 1), dim=2)",
    ),
    "pull-only: the near and the far": Mutation(
        "losses.py",
        "topk(min(k, bank.shape[1] - 1), dim=2).values",
        "topk(min(k, bank.shape[1] - 1), dim=2, largest=False).values",
        "target/loss_c=pull",
    ),
    "IPFL: a sign": Mutation(
        "losses.py", "_length(features - positive) - to_negative)", "_length(features - positive) + to_negative)"
    ),
    "IPFL: a sum for a mean": Mutation(
        "losses.py",
        "    return (hinge * counted).sum() / counted.sum().clamp(min=1)\n\n\ndef triplet_loss",
        "    return (hinge * counted).sum()\n\n\ndef triplet_loss",
    ),
    "cyclic ranking: the trusted are those in the list": Mutation(
        "losses.py", "trusted = ~in_list[candidates, owner[:, None]]", "trusted = in_list[candidates, owner[:, None]]"
    ),
    "triplet: the farthest other person": Mutation(
        "losses.py",
        'negative = distance.masked_fill(same, float("inf")).argmin(1)',
        'negative = distance.masked_fill(same, float("-inf")).argmax(1)',
        "source/default",
    ),
    "memory: the rate turned round": Mutation(
        "memory.py",
        "share = torch.where(first_ever, keep, rate * keep)",
        "share = torch.where(first_ever, keep, (1 - rate) * keep)",
    ),
    "memory: centres of summed views": Mutation(
        "memory.py", "features.to(self.centers.dtype).mean(1)", "features.to(self.centers.dtype).sum(1)"
    ),
    "memory: renormalisation left out": Mutation(
        "memory.py", "entry = F.normalize(entry, dim=-1)", "pass", "target/renormalize=True"
    ),
    "objective: the bank after the loss": Mutation(
        "objective.py", 'if o.bank_update == "after":', 'if o.bank_update == "before":'
    ),
    "objective: lambda forgotten": Mutation("objective.py", "self.options.lam * losses.get", "losses.get"),
    "objective: patch features for embeddings": Mutation(
        "objective.py",
        'concatenate(output.embeddings if o.ipfl_space == "embedding" else output.features)\n        real',
        "concatenate(output.features[..., :output.embeddings.shape[2]])\n        real",
    ),
    "network: a dropped normalisation": Mutation(
        "patchnet.py", "            features = _unit(y)\n", "            features = y\n"
    ),
    "network: ReLU on the target, too": Mutation(
        "patchnet.py", "            features = _unit(y)\n", "            features = _unit(y.relu())\n"
    ),
    "network: no ReLU at the source": Mutation("patchnet.py", "                y = y.relu()\n", "", "source/default"),
    "network: the embedding layer learns": Mutation(
        "patchnet.py", "module.requires_grad_(False)", "module.requires_grad_(True)"
    ),
    "network: theta's gradient is never cut": Mutation(
        "patchnet.py", "theta = theta.detach()", "pass", "target/freeze_pgn=detach"
    ),
    "patches: stripes one lower": Mutation(
        "patches.py",
        "(2 * torch.arange(num_patches) + 1) / num_patches",
        "(2 * torch.arange(num_patches) + 2) / num_patches",
        "source/generator=equal",
    ),
    "target stage: the bank filled in the other mode": Mutation(
        "adapt.py", 'model.train(options.bank_init == "train")', 'model.train(options.bank_init != "train")'
    ),
    "target stage: the order of draws": Mutation(
        "adapt.py", "    x = random_flip(plain, generator, share)\n    if", "    x = plain\n    if"
    ),
    "target stage: gradients never cleared": Mutation("adapt.py", "    optimizer.zero_grad()\n", ""),
    "target stage: the last batch dropped": Mutation(
        "adapt.py", "        if options.drop_last:\n", "        if True:\n"
    ),
    "rates: the decay an epoch late": Mutation(
        "schedules.py", "if epoch >= decay_epoch", "if epoch > decay_epoch", "target/lr=0.002, decay_epoch=1"
    ),
    "rates: the generator of patches learns as fast": Mutation(
        "schedules.py", "pgn_share * rate if", "rate if", "source/default"
    ),
    "optimiser: half the momentum": Mutation(
        "engine/optim.py", "momentum=momentum, weight_decay", "momentum=momentum / 2, weight_decay"
    ),
    "optimiser: weight decay forgotten": Mutation(
        "engine/optim.py", "momentum=momentum, weight_decay=weight_decay", "momentum=momentum"
    ),
    "source stage: label smoothing forgotten": Mutation(
        "pretrain.py", ", label_smoothing=options.label_smoothing", "", "source/label_smoothing=0.1, seed=6"
    ),
    "source stage: an image is its own partner": Mutation(
        "pretrain.py", "(place + step) % count", "place", "source/default"
    ),
    "surrogates: rotated the other way": Mutation(
        "data/transforms.py",
        "cos, sin, aspect = angle.cos(), angle.sin(), height / width if",
        "cos, sin, aspect = angle.cos(), -angle.sin(), height / width if",
    ),
    "surrogates: jitter after the rotation": Mutation(
        "data/transforms.py",
        '    jittered = apply_jitter(x, slots)\n    if mode == "all":\n'
        "        return resample(jittered, theta, padding)",
        '    jittered = apply_jitter(x, slots)\n    if mode == "all":\n'
        "        return apply_jitter(resample(x, theta, padding), slots)",
    ),
    "AdaBN: an average that forgets": Mutation(
        "data/passes.py", "norm.momentum = None", "norm.momentum = 0.1", "adabn/default"
    ),
    "PUL: the unreliable kept": Mutation(
        "rivals/pul/training.py",
        "centres[labels]).sum(1) > reliability",
        "centres[labels]).sum(1) < reliability",
        "pul/default",
    ),
    "LOMO: another threshold": Mutation(
        "rivals/lomo/descriptor.py", "(neighbour > (1 + tau) * x)", "(neighbour > x)", "lomo/default"
    ),
    "BoW: plain inverse frequency": Mutation("rivals/bow/descriptor.py", ".log().sqrt()", ".log()", "bow/default"),
}


def planted(mutation: Mutation, folder: Path) -> str:
    """What the trajectory's measuring prints in a copy of the sources with the mistake; "" where it noticed nothing."""
    shutil.copytree(ROOT / "paul", folder / "paul", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    for name in ("goldens.py", "goldens.json"):
        shutil.copy(ROOT / "tests" / name, folder / "tests" / name)
    path = folder / "paul" / mutation.file
    path.write_text(path.read_text(encoding="utf-8").replace(mutation.old, mutation.new), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tests.goldens", "--only", mutation.trajectory],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    return (done.stdout or done.stderr).strip() if done.returncode else ""


def main(arguments: list[str] | None = None) -> int:
    """Plant what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description="mistakes that goldens must notice")
    parser.add_argument("--only", metavar="NAME", choices=MUTATIONS, help="this one alone")
    asked, missed = parser.parse_args(arguments), []
    for name in [asked.only] if asked.only else MUTATIONS:
        with tempfile.TemporaryDirectory() as folder:
            said = planted(MUTATIONS[name], Path(folder))
        if not said:
            missed.append(name)
        lines = said.splitlines() or ["NOT NOTICED"]
        print(f"{name}: {lines[0][:160] if 'Traceback' not in lines[0] else lines[-1][:160]}", flush=True)
    print(f"{len(missed)} not noticed" + (f": {', '.join(missed)}" if missed else ""))
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())

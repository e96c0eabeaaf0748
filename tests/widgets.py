"""The numbers that the widgets must show, by paul's own functions: python -m tests.widgets writes them.

A widget's data stand in its JSON file together with cases: states of the widget and what paul's loss or ranking says of
them. A test computes the cases anew; another runs the widget's own JavaScript on them, where there is node, which also
draws the first picture of each, to be shown where no script runs.
"""

import json
import shutil
import subprocess
from pathlib import Path

import torch

from paul.losses import cyclic_ranking, pedal_loss, pull_loss

WIDGETS = Path(__file__).parents[1] / "book" / "widgets"
# one patch of four people's images, four each, in degrees; the first is the anchor's own entry
ENTRIES = [72, 96, 58, 118, 20, 38, 3, 46, 150, 168, 190, 133, 230, 250, 275, 300]
PEOPLE = "AAAABBBBCCCCDDDD"
SPOTS = [[0.0, 0.0], [0.45, 0.15], [0.2, 0.5], [1.05, 0.1], [1.35, 0.35], [1.45, -0.1]]
SPOTS += [[-1.0, 0.4], [-1.3, 0.1], [-0.9, -0.9], [0.4, -1.2], [0.7, -1.35], [1.6, 1.0]]  # those of chapter 05


def on_circle(degrees):
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angle.cos(), angle.sin()], -1)


def loss(angle, s, k, push, own):
    """Of one patch by the library; where the own entry takes part, one that does not stands in its place."""
    bank, x = on_circle(ENTRIES), on_circle([angle])
    if own:
        bank = torch.cat([torch.zeros(1, 2, dtype=torch.float64), bank])
    function = pedal_loss if push else pull_loss
    return function(x[None], bank[None], torch.tensor([0]), s=float(s), k=k).item()


def negative(spots, anchor, r, itself):
    x = torch.tensor(spots, dtype=torch.float64)
    return cyclic_ranking(x[[anchor]], x, torch.tensor([anchor]), r=r, include_self=itself).item()


def made() -> dict:
    """The contents of the two files."""
    generator = torch.Generator().manual_seed(0)
    states = [
        dict(angle=angle, s=s, k=k, push=push, own=own)
        for angle, s, k in ((84, 5, 4), (84, 30, 10), (140, 1, 1), (270, 60, 15), (359, 12, 6))
        for push in (True, False)
        for own in (True, False)
    ]
    pedal = {"entries": ENTRIES, "people": PEOPLE}
    pedal["cases"] = [{**state, "loss": round(loss(**state), 9)} for state in states]
    drawn = [SPOTS, *(torch.randn(12, 2, generator=generator).mul(0.8).round(decimals=2).tolist() for _ in range(3))]
    walks = [
        dict(spots=spots, anchor=anchor, r=r, itself=itself)
        for spots in drawn
        for anchor, r in ((0, 3), (4, 1), (7, 2), (11, 5), (2, 8), (3, 12))
        for itself in (True, False)
    ]
    cyclic = {"spots": SPOTS, "cases": [{**state, "negative": negative(**state)} for state in walks]}
    return {"pedal": pedal, "cyclic": cyclic}


def run_script(name: str, expression: str):
    """What a JavaScript expression comes to after the widget's script, with `data` its JSON file; node computes it."""
    script = (WIDGETS / f"{name}.js").read_text(encoding="utf-8")
    data = (WIDGETS / f"{name}.json").read_text(encoding="utf-8")
    code = f"{script}\nconst data = {data};\nconsole.log(JSON.stringify({expression}));"
    done = subprocess.run(["node", "-"], input=code, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    for name, content in made().items():
        lines = [f'"{key}": {json.dumps(value)}' for key, value in content.items() if key != "cases"]
        cases = ",\n".join(json.dumps(case) for case in content["cases"])
        (WIDGETS / f"{name}.json").write_text("{\n" + ",\n".join(lines) + f',\n"cases": [\n{cases}\n]\n}}\n')
        if shutil.which("node"):
            (WIDGETS / f"{name}.html").write_text(run_script(name, "draw(start(data))") + "\n")

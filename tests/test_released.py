"""The authors' checkpoint from the command line: evaluated and adapted on a look-alike set, against plain equations."""

import re

import numpy as np
import pytest
import raw_sets
import torch
from PIL import Image
from test_checkpoint import PATCHES, from_scratch, released  # noqa: F401
from torch.nn import functional as F

from data_prep import real
from paul import checkpoint, cli
from paul.bench import literal as reference
from paul.data.datasets import ReidDataset


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """data/market1501, prepared from a look-alike."""
    folder = tmp_path_factory.mktemp("market")
    real.prepare(
        real.plan_market1501(),
        raw_sets.market(folder / "raw"),
        folder / "data",
        published=raw_sets.SMALL,
        progress=False,
    )
    return folder / "data/market1501"


@pytest.fixture(scope="module")
def file(released, tmp_path_factory):
    path = tmp_path_factory.mktemp("released") / "paul.pth"
    torch.save({"state_dict": released, "epoch": 60}, path)
    return path


def described(state, split):
    """Unit patch features side by side, from the files and the equations."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (reference.MEAN, reference.STD))
    images = []
    for path in split.files:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize((128, 384), Image.BILINEAR))
        images.append((torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255 - mean) / std)
    with torch.no_grad():
        features, _, _ = from_scratch(state, torch.stack(images))
    return torch.cat([F.normalize(feature) for feature in features], dim=1)


def test_it_evaluates_to_what_its_equations_say(released, file, market, capsys):
    assert cli.main(["evaluate", "--released", str(file), "--data", str(market), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    query, gallery = (ReidDataset.load(market).split(name) for name in ("query", "gallery"))
    distances = reference.squared_distances(described(released, query), described(released, gallery))
    expected = reference.evaluate_distances(
        distances, query.person_ids, gallery.person_ids, query.camera_ids, gallery.camera_ids
    )
    shown = {line.split()[0]: float(line.split()[1]) for line in said.splitlines() if "%" in line}
    for name, value in (
        ("rank1", expected["cmc"][0]),
        ("rank5", expected["cmc"][4]),
        ("minp", expected["minp"]),
        ("map_step", expected["map_step"]),
        ("map_trapezoid", expected["map_trapezoid"]),
    ):
        assert shown[name] == pytest.approx(100 * value, abs=0.006), name
    assert len({round(value) for value in shown.values()}) > 1, "a set on which every score is the same proves little"
    assert re.search(r"map_trapezoid .* \(area under the curve, the paper's\)", said)
    assert re.search(r"map_step .* \(step, most frameworks'\)", said)


def test_it_adapts(file, market, tmp_path, capsys):
    settings = [part for setting in ("adapt.epochs=1", "adapt.batch=3", "adapt.k=1") for part in ("--set", setting)]
    command = ["adapt", "--released", str(file), "--data", str(market), "--out", str(tmp_path), "--device", "cpu"]
    assert cli.main([*command, *settings]) == 0, capsys.readouterr().err
    before, (after, _) = checkpoint.import_released(file), checkpoint.load(tmp_path / "model.pt")
    assert after.stage == "target" and after.image_size == (384, 128) and after.options.num_patches == PATCHES
    now = dict(after.named_parameters())
    same = {name for name, value in before.named_parameters() if torch.equal(value, now[name])}
    assert {name for name in now if name.startswith(("generator.", "embedding."))} <= same
    assert not same & {"branch.weight", "backbone.conv1.weight", "backbone.layer4.2.conv3.weight"}
    # the paper's options, since nothing else was asked for
    spec = checkpoint.read(tmp_path / "checkpoint.pt")["training"]["spec"]
    assert '"lr": 0.0001' in spec and '"s": 30.0' in spec and '"decay_epoch": 50' in spec

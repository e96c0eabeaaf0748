"""The plan of a study: operations counted by hand, speeds from records, sizes from index or print, what is missing."""

import pytest
import torch
from people import SIZE, TINY
from torch import nn

from paul import cli
from paul.experiments import costs, plan
from paul.experiments.costs import cost_of
from paul.experiments.plan import images_of, measured_rates, work_of
from paul.experiments.profiles import PROFILES
from paul.experiments.provenance import machine
from paul.experiments.rows import ROWS
from paul.experiments.specs import Places, Spec, specs_of
from paul.options import PatchNetOptions
from paul.patchnet import PatchNet


def products_by_hand(model, x):
    """Multiply-adds of every convolution and linear layer, from the shapes that a real forward pass sees."""
    total = []

    def note(layer, inputs, output):
        if isinstance(layer, nn.Conv2d):
            total.append(output.numel() * layer.weight[0].numel())
        elif isinstance(layer, nn.Linear):
            total.append(output.numel() * layer.in_features)

    hooks = [layer.register_forward_hook(note) for layer in model.modules()]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return sum(total)


@pytest.mark.parametrize("row", ["patch_direct", "equal_direct", "pgn4_direct"])
def test_operations_and_weights_are_those_of_the_layers(row):
    options = ROWS[row].changed("network", TINY.network)
    model = PatchNet(options, num_classes=costs.CLASSES)
    cost = cost_of(options, SIZE)
    layers = products_by_hand(model, torch.zeros(4, 3, *SIZE)) / 4
    patches, channels, places = options.num_patches, 96, 5 * 3
    # per patch: pooling, branch, embedding and classifier
    patchwise = patches * (
        channels * places + channels * options.dim + options.dim * (options.dim // 2) + options.dim * costs.CLASSES
    )
    pooling_weights = 2 * patches * places**2  # the grid and its tents, at most
    assert 2 * (layers + patchwise) <= cost.flops <= 2 * (layers + patchwise + pooling_weights)
    assert cost.parameters == sum(p.numel() for p in model.parameters())


def test_activations_grow_with_the_image_and_not_with_the_count(monkeypatch):
    options = TINY.network
    one = cost_of(options, (80, 48))
    monkeypatch.setattr(costs, "COUNTED", 2 * costs.COUNTED)
    cost_of.cache_clear()
    assert abs(cost_of(options, (80, 48)).activations / one.activations - 1) < 0.05
    monkeypatch.undo()
    cost_of.cache_clear()
    assert 3 < cost_of(options, (160, 96)).activations / cost_of(options, (80, 48)).activations < 4.5
    # the first map alone, 16 channels at half the size, kept before and after its norm
    assert one.activations > 2 * 4 * 16 * 40 * 24


def test_counting_leaves_the_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    cost_of.cache_clear()
    cost_of(PatchNetOptions(backbone="small", dim=8, pgn_channels=8, pgn_hidden=8), SIZE)
    assert torch.equal(torch.rand(3), expected)


def test_a_run_is_so_many_passes(data, tiny_smoke):
    def passes(row, target="market"):
        work = work_of(Spec(row, target, 0, "smoke"), str(data))
        return work.pretrain / work.cost.flops, work.adapt / work.cost.flops

    # 24 source images in pairs, 2 epochs, forward and twice that backward; 20 target images; 5 queries, 6 of gallery
    source, tested = 2 * 24 * 2 * 3, 11
    assert passes("patch_direct") == (source, tested)
    assert passes("patch_adabn") == (source, tested + 20)
    assert passes("patch_lc") == (source, tested + 20 + 2 * 20 * 3)
    assert passes("patch_lv") == (source, tested + 2 * 40 * 3)
    assert passes("paul") == (source, tested + 20 + 2 * 40 * 3)


def test_speed_comes_from_records_of_the_same_device(data, tiny_smoke):
    work = work_of(Spec("paul", "market", 0, "smoke"), str(data))
    record = {
        "row": "paul",
        "target": "market",
        "seed": 0,
        "profile": "smoke",
        "device": "cpu",
        "machine": machine(),
        "seconds": {"pretrain": 2.0, "adapt": 3.0, "evaluate": 1.0},
    }
    cpu = torch.device("cpu")
    assert measured_rates([record, record], str(data), cpu) == pytest.approx(
        {"pretrain": work.pretrain / 2, "adapt": work.adapt / 4}
    )
    for other in ({"machine": "another"}, {"device": "a GPU"}, {"row": "gone"}):
        assert measured_rates([{**record, **other}], str(data), cpu) == {}


def test_sizes_are_published_where_the_set_is_not_there(data, tmp_path):
    assert images_of(str(data / "smoke/market")) == {
        "train": 10 * 2,
        "query": 5,
        "gallery": 6,
        "val_query": 1,
        "val_gallery": 2,
    } | {"train": 20}
    assert images_of(str(tmp_path / "msmt17")) == {"train": 126_441}
    assert images_of(str(tmp_path / "market1501"))["gallery"] == 15_913 + 3_819
    assert images_of(str(tmp_path / "mine")) == {}


def test_expected_sizes_are_those_of_data_prep(tmp_path):
    from data_prep.expected import expected_images

    for folder in {folder for p in PROFILES.values() for folder in p.folders.values()}:
        said = expected_images(f"data/{folder}")
        assert images_of(str(tmp_path / folder)) == {
            split: said[split] for split in ("train", "query", "gallery") if split in said
        }, folder


@pytest.mark.parametrize(("name", "role"), [("mini", "source"), ("mini", "duke"), ("smoke", "market")])
def test_rendered_sizes_are_what_is_rendered(name, role):
    from collections import Counter

    from data_prep.expected import expected_images
    from data_prep.synthetic import plan_set

    real, said = Counter(row["split"] for row in plan_set(role, name).rows), expected_images(f"data/{name}/{role}")
    assert said.keys() == real.keys()
    assert said == real


def test_rendering_says_first_what_it_will_take(capsys, tmp_path):
    from data_prep.__main__ import main

    assert main(["synthetic", "--profile", "gpu", "--out", str(tmp_path), "--workers", "4", "--plan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    # 1,040 people x 4 cameras x 5 images and 100 x 4 x 5, with 150 others; at 2.3 million pixels a second and process
    assert lines[0] == f"{tmp_path}/gpu/source: about 22,950 images of 256x128, 353 MB, 82 s on 4 processes"
    assert len(lines) == 3 and not list(tmp_path.iterdir())


def test_the_papers_study(tmp_path):
    own = [name for name, row in ROWS.items() if row.method in ("direct", "adabn", "paul") and not row.of]
    specs = [spec for table in ("table3", "table4") for spec in specs_of(table, "paper", [0, 1, 2])]
    found = plan.plan(specs, Places(str(tmp_path / "data"), str(tmp_path), str(tmp_path)))
    assert len(found.specs) == 2 * 3 * len(own) and len(found.sources) == 3 * 6
    assert found.unit == "GPU" and 50 < sum(found.hours.values()) < 1000
    assert found.image_bytes == {"source": 126_441 * 3 * 384 * 128, "target": 16_522 * 3 * 384 * 128}
    lines = "\n".join(found.lines())
    assert "108, from 18 source models" in lines and "17.4 GiB" in lines and "assuming 10e12" in lines
    with pytest.raises(FileNotFoundError) as refused:
        found.refuse_missing("data")
    for name in ("msmt17", "market1501", "dukemtmc"):
        assert f"{tmp_path}/data/{name}: python -m data_prep {name} --raw ARCHIVE_OR_FOLDER --out" in str(refused.value)
    assert "--i-have-the-right" in str(refused.value)


def test_hours_are_operations_over_speed(data, tmp_path, tiny_smoke):
    specs = specs_of("table3", "smoke", [0, 1], ["market"], ["patch_direct", "paul"])
    found = plan.plan(specs, Places(str(data), str(tmp_path), str(tmp_path), "cpu"))
    works = [work_of(spec, str(data)) for spec in specs]
    speed = plan.ASSUMED["cpu"]["float32"] * 1e12 * 3600
    assert found.hours == pytest.approx(
        {"pretrain": 2 * works[0].pretrain / speed, "adapt": sum(work.adapt for work in works) / speed}
    )
    assert found.missing == [] and found.unit == "CPU"
    weights = works[0].cost.parameters
    bank = 4 * 20 * TINY.network.num_patches * (8 + 4)
    assert found.checkpoint_bytes == 2 * (8 * weights) + 2 * (8 * weights + bank)
    assert found.device_bytes["bank"] == bank and found.device_bytes["network and optimiser"] == 12 * weights


def test_a_finished_source_model_is_not_planned_again(data, tmp_path, tiny_smoke):
    places = Places(str(data), str(tmp_path), str(tmp_path), "cpu")
    spec = Spec("patch_direct", "market", 0, "smoke")
    log = plan.source_folder(spec, places) / "log.jsonl"
    log.parent.mkdir(parents=True)
    for epochs, left in ((1, 1), (2, 0)):
        log.write_text("{}\n" * epochs)
        assert len(plan.plan([spec], places).sources) == left


def test_a_row_without_a_network_costs_no_operations(tmp_path):
    found = plan.plan(specs_of("table1", "paper", [0], rows=["lomo"]), Places(str(tmp_path), str(tmp_path)))
    assert found.sources == [] and sum(found.hours.values()) == 0 and found.checkpoint_bytes == 0
    assert len(found.lines()) >= 5


def test_only_sets_that_are_read_are_missed(tmp_path):
    hand_crafted = plan.plan(specs_of("table1", "paper", [0], rows=["lomo", "bow"]), Places(str(tmp_path)))
    assert hand_crafted.missing == [f"{tmp_path}/market1501"]
    assert (
        f"{tmp_path}/msmt17" in plan.plan(specs_of("table1", "paper", [0], rows=["pul"]), Places(str(tmp_path))).missing
    )


def test_the_plan_comes_first_and_missing_sets_stop_the_run(tmp_path, capsys):
    arguments = [
        "run",
        "table3",
        "--profile",
        "paper",
        "--seeds",
        "0",
        "--data",
        str(tmp_path / "sets"),
        "--results",
        str(tmp_path / "results"),
        "--models",
        str(tmp_path / "models"),
    ]
    assert cli.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out.startswith("profile paper: 20 runs, 20 to compute\n  runs:") and "GPU-hours" in out
    assert err.count("\n") == 1 and "paul run: 3 data sets are missing" in err
    assert not (tmp_path / "results").exists() and not (tmp_path / "models").exists()
    assert cli.main([*arguments, "--plan"]) == 0
    assert f"missing: {tmp_path}/sets/msmt17: python -m data_prep msmt17" in capsys.readouterr().out


def test_a_worlds_sets_are_planned_and_missed_by_their_own_names(tmp_path):
    assert images_of(str(tmp_path / "mini-w3/market")) == images_of(str(tmp_path / "mini/market")) != {}
    found = plan.plan(specs_of("table3", "mini", [0], rows=["paul"], worlds=[3]), Places(str(tmp_path), str(tmp_path)))
    with pytest.raises(FileNotFoundError, match=r"mini-w3/market.*data_prep synthetic --profile mini --world 3 --out"):
        found.refuse_missing(str(tmp_path))

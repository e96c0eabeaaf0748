"""Costs on paper: against operations counted one layer at a time, tensors that exist, and a file on the disk."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from paul import checkpoint
from paul.engine import distributed
from paul.experiments import costs
from paul.experiments.costs import Step
from paul.losses import pedal_loss
from paul.objective import PaulLoss
from paul.options import AdaptOptions, PatchNetOptions
from paul.patchnet import PatchNet, PatchNetOutput
from paul.sharded import ShardedPaulLoss

SMALL = PatchNetOptions(backbone="small", num_patches=3, dim=8, pgn_channels=8, pgn_hidden=8)
STEP = Step(images=50, batch=5, patches=3, dim=8, centre_dim=12)


@pytest.mark.parametrize("options", [SMALL, PatchNetOptions(backbone="resnet18", pgn_channels=8, pgn_hidden=8)])
def test_flops_of_the_backbone_are_those_of_its_convolutions(options):
    body = PatchNet(options).backbone.eval()
    counted = []

    def count(module, inputs, output):
        inside = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
        counted.append(2 * inside * output[0].numel())

    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    body(torch.zeros(1, 3, 96, 48))
    assert costs.network_flops(options, (96, 48), backward=False) == sum(counted)
    # backward: as much for the weights, and as much for the input, which the first layer does not need
    assert costs.network_flops(options, (96, 48)) == 3 * sum(counted) - counted[0]


def test_a_frozen_patch_generator_takes_gradients_to_its_input_only():
    both, backbone = (costs.network_flops(SMALL, (96, 48), part) for part in ("generator", "backbone"))
    forward, alone = (costs.network_flops(SMALL, (96, 48), part, backward=False) for part in ("generator", "backbone"))
    assert both - backbone == pytest.approx(2 * (forward - alone), rel=0.01)
    with pytest.raises(ValueError, match="part must be"):
        costs.network_flops(SMALL, (96, 48), "head")


def test_the_patch_loss_takes_the_two_products_that_it_is_said_to_take():
    features = torch.randn(STEP.patches, STEP.batch, STEP.dim, requires_grad=True)
    bank = torch.randn(STEP.patches, STEP.images, STEP.dim)
    with FlopCounterMode(display=False) as counter:
        pedal_loss(features, bank, torch.arange(STEP.batch)).backward()
    assert counter.get_total_flops() == STEP.pedal_flops


def test_bytes_are_those_of_the_tensors():
    model = PatchNet(SMALL).to_target()
    loss = PaulLoss(model, STEP.images, AdaptOptions())
    assert loss.memory.bank.nbytes == STEP.bank_bytes
    assert loss.centers.centers.nbytes == STEP.centre_bytes
    assert STEP.similarity_bytes == torch.zeros(STEP.patches, STEP.batch, STEP.images).nbytes
    ranks = Step(images=50, patches=3, dim=8, ranks=4)
    assert ranks.bank_bytes == torch.zeros(3, 13, 8).nbytes  # the largest share of 50 over 4


def test_ranks_exchange_the_bytes_that_are_said(monkeypatch):
    """Of every exchange of a step its size is noted; none takes place, since the other ranks are not there."""
    step = Step(images=50, batch=6, patches=3, dim=8, centre_dim=12, nearest=4, ranks=2)
    summed, gathered = [], []
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda x: summed.append(x.nbytes))
    monkeypatch.setattr(distributed.dist, "all_gather", lambda all, x: gathered.append(x.nbytes))
    model = PatchNet(SMALL).to_target()
    loss = ShardedPaulLoss(model, step.images, AdaptOptions(k=4), distributed.World(0, 2))
    half = PatchNetOutput(torch.randn(3, 6, 8, requires_grad=True), torch.randn(3, 6, 4, requires_grad=True), None)
    loss(half, torch.arange(6))["loss"].backward()  # 3 of the 6 images with their surrogates are here
    small = 4 * 1  # the number of anchors that count
    received = sum(2 * size // 2 for size in summed if size != small) + sum(gathered)
    assert received == step.loss_bytes_sent


def test_a_checkpoint_has_the_size_that_is_said(tmp_path):
    step = Step(images=20_000, patches=3, dim=8, centre_dim=12)
    model = PatchNet(SMALL).to_target()
    loss = PaulLoss(model, step.images, AdaptOptions())
    trained = [p for p in model.parameters() if p.requires_grad]
    momentum = {str(place): torch.zeros_like(p) for place, p in enumerate(trained)}
    checkpoint.save(
        tmp_path / "file.pt",
        model,
        momentum=momentum,
        memory=loss.memory.state_dict(),
        centers=loss.centers.state_dict(),
    )
    expected = step.checkpoint_bytes(*costs.weights(SMALL))
    assert (tmp_path / "file.pt").stat().st_size == pytest.approx(expected, rel=0.05)


def test_at_the_crossing_both_cost_the_same():
    flops = costs.network_flops()
    step = Step(images=round(costs.crossing(flops)))
    assert step.pedal_flops == pytest.approx(2 * step.batch * flops, rel=1e-6)
    assert costs.crossing(flops, slower=4) == pytest.approx(costs.crossing(flops) / 4)


def test_ranks_share_the_bank_and_what_they_send_does_not_grow_with_it():
    whole = Step(images=10_000_000)
    share = 10e9
    ranks = whole.ranks_for(share)
    for r, fits in ((ranks, True), (ranks - 1, False)):
        step = Step(images=10_000_000, ranks=r)
        assert (2 * step.bank_bytes + step.centre_bytes + step.similarity_bytes <= share) is fits
    assert Step(ranks=8).loss_bytes_sent == Step(images=10_000_000, ranks=8).loss_bytes_sent
    assert Step(ranks=1).loss_bytes_sent == Step(ranks=1).gradient_bytes_sent(100) == 0
    assert Step(ranks=1).checkpoint_bytes(10, 5) == Step(ranks=8).checkpoint_bytes(10, 5)


def test_the_page_states_what_the_functions_say():
    text = (Path(__file__).parents[1] / "book/pages/from_laptop_to_cluster.md").read_text(encoding="utf-8")
    for table in (costs.network_table(), costs.growth_table(), costs.ranks_table()):
        assert table in text
    page, large = " ".join(text.split()), Step(images=10_000_000)
    backbone, both = (costs.crossing(costs.network_flops(part=part)) / 1e6 for part in ("backbone", "generator"))
    gigabytes = {
        name: size / 1e9
        for name, size in (
            ("bank", large.bank_bytes),
            ("centres", large.centre_bytes),
            ("similarities", large.similarity_bytes),
            ("checkpoint", large.checkpoint_bytes(*costs.weights())),
        )
    }
    for sentence in (
        f"overtakes the backbone alone at N = {backbone:.1f} million",
        f"runs as well, at {both:.1f} million",
        f"a tenth of that: {backbone / 10:.1f} million for the backbone",
        f"with {large.patches * large.dim:,} numbers each takes {gigabytes['bank']:.1f} GB in float32, the centres "
        f"{gigabytes['centres']:.1f} GB and one batch's similarities {gigabytes['similarities']:.1f} GB more",
        f"with 40 GB a rank beside network and activations it takes {large.ranks_for(40e9)} ranks, with 10 GB "
        f"{large.ranks_for(10e9)}",
        f"needs {gigabytes['checkpoint']:.1f} GB of host memory",
        f"fit into memory either ({large.image_bytes() / 1e12:.2f} TB)",
        f"($M = {large.patches}$, $D = {large.dim}$, $E = {large.centre_dim}$, $B = {large.batch}$, "
        f"$k = {large.nearest}$)",
    ):
        assert sentence in page, sentence

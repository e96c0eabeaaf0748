"""No step makes the host wait for the device: shown without a GPU, and by CUDA itself where there is one.

Without a GPU, two stand-ins. Fake CUDA tensors have a shape and a device and no values: what needs a value on the host
(`item`, `nonzero`, a mask as an index, a branch on a tensor) raises, and every copy between host and device is looked
at. They cannot run backward, which tensors on the "meta" device can.
"""

import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from people import ADAPT, NETWORK, PRETRAIN
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from paul.adapt import step, views
from paul.data.batches import batch_of
from paul.data.transforms import normalize, per_channel, random_flip, random_shift
from paul.engine.device import send
from paul.engine.optim import parameter_groups, prepare, sgd
from paul.objective import PaulLoss
from paul.patchnet import PatchNet
from paul.pretrain import source_losses

CUDA, META = torch.device("cuda:0"), torch.device("meta")
VALUES_NEEDED = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
    NotImplementedError,
    RuntimeError,
)


class Waits(Exception):
    """A copy between host and device that the host waits for."""


class NoWaiting(TorchDispatchMode):
    """Raises at any copy back to the host, and at a copy to the device that is not asked to be non-blocking.

    `to_meta` lets copies to the meta device pass: `send` asks for non-blocking copies on CUDA only.
    """

    def __init__(self, to_meta=False):
        super().__init__()
        self.to_meta = to_meta

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._schema.name in ("aten::_to_copy", "aten::copy_"):
            given = dict(zip((argument.name for argument in func._schema.arguments), args)) | (kwargs or {})
            start = [leaf.device for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)][-1]
            fine = given.get("non_blocking") or (self.to_meta and out.device == META)
            if start != out.device and not (fine and start.type == "cpu"):
                raise Waits(f"{func._schema.name} from {start} to {out.device}")
        return out


@pytest.fixture
def fake(monkeypatch):
    """A CUDA device without hardware or values."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)  # pinning is for the real one
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)  # fake parameters are made where they stay
    per_channel.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # autocast notes that there is no GPU
        with FakeTensorMode():
            yield
    per_channel.cache_clear()


WAITING = {
    "item": lambda x: x.sum().item(),
    "branch": lambda x: bool(x.sum() > 0),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "unique": lambda x: x.unique(),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "copy back": lambda x: torch.rand(4, device="cpu").copy_(x, non_blocking=True),
}
BLOCKING = {
    "constants": lambda x: x.new_tensor([1.0, 2.0]),
    "constant": lambda x: x / x.new_tensor(2),
    "to": lambda x: torch.rand(4, device="cpu").to(x.device),
    "copy_": lambda x: x.copy_(torch.rand(4, device="cpu")),
}


@pytest.mark.parametrize("name", [*WAITING, *BLOCKING])
def test_what_waits_is_caught_on_a_fake_device(fake, name):
    with pytest.raises((Waits, *VALUES_NEEDED)), NoWaiting():
        (WAITING | BLOCKING)[name](torch.rand(4, device=CUDA))


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_is_caught_on_the_meta_device(name):
    with pytest.raises((Waits, *VALUES_NEEDED)), NoWaiting(to_meta=True):
        WAITING[name](torch.rand(4, device=META))


class TargetStep:
    """One step of the target stage, to be taken again and again; what it needs between steps is on the device."""

    def __init__(self, device, options=ADAPT, network=NETWORK):
        self.device, self.options = device, options
        self.model = prepare(PatchNet(network).to_target(), device).train()
        self.objective = PaulLoss(self.model, 20, options).to(device)
        self.images = torch.randint(256, (20, 3, 40, 24), dtype=torch.uint8, device=device)
        self.optimizer = sgd(parameter_groups(self.model), device, lr=0.01, momentum=0.9, weight_decay=1e-4)
        self.generator = torch.Generator().manual_seed(0)

    def forward(self):
        """What stands before the gradients in `paul.adapt.step`, which fake tensors cannot run."""
        x, index = self.views()
        output = self.model(x)
        return self.objective(output, index)

    def views(self):
        index = torch.randperm(20, generator=self.generator)[:6]
        return views(batch_of(self.images, index, self.device), self.options, self.generator), index

    def whole(self):
        return step(self.model, self.objective, self.optimizer, *self.views())

    def backward(self, losses):
        self.optimizer.zero_grad()
        losses["loss"].backward()
        self.optimizer.step()


class SourceStep(TargetStep):
    """One step of the source stage."""

    def __init__(self, device):
        super().__init__(device)
        self.model = prepare(PatchNet(NETWORK, num_classes=5), device).train()
        self.optimizer = sgd(parameter_groups(self.model), device, lr=0.01, momentum=0.9, weight_decay=1e-4)

    def forward(self):
        index = torch.randperm(20, generator=self.generator)[:8]
        x = random_flip(batch_of(self.images, index, self.device), self.generator)
        x = random_shift(x, self.generator)
        return source_losses(self.model(normalize(x)), send(index % 5, self.device), PRETRAIN)

    def whole(self):
        losses = self.forward()
        self.backward(losses)
        return losses


STEPS = {
    "PAUL": TargetStep,
    "PAUL, the other reading": lambda device: TargetStep(
        device,
        replace(
            ADAPT,
            loss_c="pull",
            ipfl_targets="raw",
            ipfl_space="patch",
            surrogate="one",
            include_self=False,
            no_negative="skip",
            renormalize=True,
        ),
    ),
    "random patches": lambda device: TargetStep(device, network=replace(NETWORK, generator="random")),
    "source": SourceStep,
}


def ready(name, device):
    """A step whose constants, made once per device, are there."""
    with torch.device(device):
        taken = STEPS[name](device)
    with torch.no_grad():
        taken.forward()
    return taken


@pytest.mark.parametrize("name", STEPS)
def test_no_forward_pass_waits_on_a_fake_device(fake, name):
    taken = ready(name, CUDA)
    with NoWaiting():
        losses = taken.forward()
    assert taken.optimizer.defaults["fused"] and all(value.device == CUDA for value in losses.values())


@pytest.mark.parametrize("name", STEPS)
def test_no_whole_step_waits_on_the_meta_device(name, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for this device
    taken = ready(name, META)
    for _ in range(2):
        with NoWaiting(to_meta=True):
            losses = taken.whole()
    assert all(value.device == META for value in losses.values())
    assert all(weight.grad is not None for weight in taken.model.parameters() if weight.requires_grad)


@contextmanager
def cuda_complains():
    """CUDA raises where an operator makes the host wait."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", STEPS)
def test_no_whole_step_waits_on_a_gpu(name):
    torch.manual_seed(0)
    taken = ready(name, CUDA)
    for _ in range(2):  # constants, momentum, libraries that set themselves up at first use
        taken.whole()
    with cuda_complains():
        for _ in range(3):
            losses = taken.whole()
    assert all(value.isfinite() for value in losses.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda_complains_of_what_waits():
    x = torch.rand(4, device=CUDA)
    for wait in (WAITING["item"], WAITING["nonzero"], WAITING["cpu"], *BLOCKING.values()):
        with cuda_complains(), pytest.raises(RuntimeError, match="synchroniz"):
            wait(x)

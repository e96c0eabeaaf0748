"""What is not finite is refused before it is written as a descriptor."""

import pytest
import torch

from paul import checkpoint
from paul.options import PatchNetOptions
from paul.patchnet import PatchNet
from paul.retrieval.extractor import Extractor

OPTIONS = PatchNetOptions(backbone="small", num_patches=2, dim=8, pgn_channels=8, pgn_hidden=8)


def network():
    torch.manual_seed(0)
    model = PatchNet(OPTIONS, num_classes=3)
    model.image_size = (48, 24)
    return model


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_the_name_of_their_file(tmp_path, bad):
    model = network()
    next(model.parameters()).data.view(-1)[0] = bad
    checkpoint.save(tmp_path / "model.pt", model, epoch=1)
    with pytest.raises(ValueError, match=r"model.pt holds weights that are not finite"):
        Extractor(str(tmp_path / "model.pt"), device="cpu")


def test_descriptors_that_are_not_finite_are_refused(monkeypatch):
    model = network()
    describe = Extractor(model)
    assert describe(torch.rand(3, 48, 24)).isfinite().all()
    monkeypatch.setattr(model, "describe", lambda x: torch.full((len(x), describe.width), torch.nan))
    with pytest.raises(ValueError, match="descriptors are not finite"):
        describe(torch.rand(3, 48, 24))

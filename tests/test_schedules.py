"""The learning rates of both stages against the released schedule, epoch by epoch."""

import pytest

from paul.bench import literal as reference
from paul.schedules import source_learning_rates, target_learning_rates


@pytest.mark.parametrize("epoch", range(60))
def test_rates_of_each_epoch(epoch):
    assert source_learning_rates(epoch) == pytest.approx(reference.source_learning_rates(epoch))
    assert target_learning_rates(epoch) == pytest.approx(reference.target_learning_rates(epoch))

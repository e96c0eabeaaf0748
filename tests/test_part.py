"""Which part of a target a run is given."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paul.data.datasets import part_of


@given(
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=12),
    people=st.floats(0.05, 1),
    images=st.floats(0.05, 1),
    seed=st.integers(0, 5),
)
def test_a_part_has_its_share_of_people_and_of_each_ones_images(counts, people, images, seed):
    ids = np.random.default_rng(seed).permutation(np.repeat(np.arange(7, 7 + len(counts)), counts))
    kept = part_of(ids, people, images, seed)
    assert np.array_equal(kept, part_of(ids, people, images, seed)) and np.all(np.diff(kept) > 0)
    found = dict(zip(*np.unique(ids[kept], return_counts=True)))
    assert len(found) == max(2, round(people * len(counts)))
    for person, count in found.items():
        assert count >= 1 and abs(count - images * counts[person - 7]) <= max(0.5, 1 - images * counts[person - 7])


def test_the_whole_is_a_part_and_other_seeds_take_other_parts():
    ids = np.repeat(np.arange(1, 21), 4)
    assert np.array_equal(part_of(ids), np.arange(80))
    assert not np.array_equal(part_of(ids, 0.5, 0.5, 0), part_of(ids, 0.5, 0.5, 1))
    assert set(ids[part_of(ids, 0.5, 1.0, 0)]) == set(ids[part_of(ids, 0.5, 0.5, 0)])  # images are a choice within it

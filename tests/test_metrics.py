"""Retrieval scores against a walk down each ranked list, scikit-learn, closed forms and properties."""

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paul import metrics
from paul.bench import literal as reference
from paul.metrics import MAX_RANK, evaluate, evaluate_distances

SCORES = ("map_step", "map_trapezoid", "minp")


def a_gallery(seed, ties=False, queries=11, gallery=60):
    """Distances and labels of a small test set; query 0 has no match anywhere, query 1 a certain one."""
    g = torch.Generator().manual_seed(seed)
    distances = torch.rand(queries, gallery, generator=g, dtype=torch.float64)

    def whole_numbers(low, high, count):
        return torch.randint(low, high, (count,), generator=g)

    labels = dict(
        query_ids=whole_numbers(1, 6, queries),
        gallery_ids=whole_numbers(-1, 6, gallery),
        query_cams=whole_numbers(1, 4, queries),
        gallery_cams=whole_numbers(1, 4, gallery),
    )
    labels["query_ids"][0] = 99
    labels["query_ids"][1], labels["gallery_ids"][0], labels["gallery_cams"][0] = 1, 1, 9
    return (distances * 6).floor() if ties else distances, labels


def assert_walked(ours, distances, labels):
    """The scores are those of the walk down each ranked list."""
    literal = reference.evaluate_distances(distances, **labels)
    pd.testing.assert_frame_equal(ours.per_query, pd.DataFrame(literal["per_query"]), rtol=1e-12)
    torch.testing.assert_close(ours.cmc.tolist(), literal["cmc"])
    for name in SCORES:
        assert getattr(ours, name) == pytest.approx(literal[name], rel=1e-12)
    assert ours.left_out == literal["left_out"]
    assert ours.queries + ours.left_out == len(labels["query_ids"])


def assert_same_scores(ours, theirs):
    pd.testing.assert_frame_equal(ours.per_query, theirs.per_query, rtol=1e-12)
    assert torch.equal(ours.cmc, theirs.cmc) and ours.left_out == theirs.left_out
    assert all(getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-12) for name in SCORES)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), ties=st.booleans(), chunk=st.integers(1, 12))
def test_agrees_with_the_walk_down_each_list(seed, ties, chunk):
    distances, labels = a_gallery(seed, ties)
    ours = evaluate_distances(distances, **labels, chunk=chunk)
    assert_walked(ours, distances, labels)
    assert ours.left_out >= 1


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    queries=st.integers(1, 9),
    gallery=st.integers(1, 400),
    people=st.integers(1, 60),
    cameras=st.integers(1, 3),
    values=st.integers(1, 30),
    block=st.integers(1, 600),
    chunk=st.integers(1, 10),
)
def test_cutting_the_gallery_into_blocks_changes_nothing(seed, queries, gallery, people, cameras, values, block, chunk):
    """Junk and distractors; ties within a block and across; blocks that are not filled."""
    g = torch.Generator().manual_seed(seed)
    # Whole numbers in one dimension: all distances are exact, and many are equal.
    query, images = (torch.randint(values, (n, 1), generator=g).float() for n in (queries, gallery))
    labels = {
        f"{side}_{kind}": torch.randint(low, high + 1, (n,), generator=g)
        for side, n in (("query", queries), ("gallery", gallery))
        for kind, low, high in (("ids", -1, people), ("cams", 1, cameras))
    }
    labels["query_ids"].clamp_(min=1)
    labels["query_ids"][0], labels["gallery_ids"][-1], labels["gallery_cams"][-1] = 1, 1, 9
    distances = reference.squared_distances(query, images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "BLOCK", block)
        assert_walked(evaluate_distances(distances, **labels, chunk=chunk), distances, labels)
        names = ("query_ids", "query_cams"), ("gallery_ids", "gallery_cams")
        query_labels, gallery_labels = ([labels[name] for name in group] for group in names)
        assert_walked(evaluate(query, *query_labels, images, *gallery_labels, chunk=chunk), distances, labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gallery_of_many_blocks_and_uneven_people(dtype):
    """One person has most of the images, others one; near-equal distances differ in the last bit."""
    g = torch.Generator().manual_seed(0)
    ids = torch.cat([torch.full((900,), 1), torch.arange(-1, 1500)])
    labels = dict(
        query_ids=torch.tensor([1, 2, 3, 4, 1499, 5000]),
        query_cams=torch.zeros(6, dtype=torch.int64),
        gallery_ids=ids[torch.randperm(len(ids), generator=g)],
        gallery_cams=torch.randint(2, (len(ids),), generator=g),
    )
    one = torch.ones(6, len(ids), dtype=dtype)
    steps = torch.randint(3, one.shape, generator=g)
    distances = one + steps * torch.finfo(dtype).eps
    assert_walked(evaluate_distances(distances, **labels), distances, labels)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 511, 512, 513, 1300])
def test_a_gallery_of_one_person(count):
    distances = torch.arange(count).flip(0).float()[None]
    person, cams = torch.tensor([1]), torch.tensor([1])
    ours = evaluate_distances(distances, person, torch.ones(count, dtype=torch.int64), cams, torch.full((count,), 2))
    assert ours.rank(1) == ours.map_step == ours.map_trapezoid == ours.minp == 1
    assert ours.per_query.positives.tolist() == [count]


@pytest.mark.parametrize("right, wrong", [(0.0, -0.0), (-0.0, 0.0), (3e38, 3e38), (-3e38, -3e38)])
def test_zeros_of_either_sign_tie_and_the_largest_numbers_are_numbers(right, wrong):
    """The last of the gallery is junk, the one before it the same camera's; neither ranks before a far right image."""
    labels = dict(query_ids=[1], query_cams=[1], gallery_ids=[1, 2, 3, 1, -1], gallery_cams=[2, 2, 2, 1, 2])
    ours = evaluate_distances(torch.tensor([[right, wrong, wrong, right, right]]), **labels)
    assert ours.per_query.first_rank.tolist() == [3] and ours.per_query.ap_step.tolist() == [1 / 3]


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn_where_nothing_ties(seed):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    distances, labels = a_gallery(seed, queries=6)
    ours = evaluate_distances(distances, **labels)
    for row in ours.per_query.itertuples():
        same_person = labels["gallery_ids"] == labels["query_ids"][row.query]
        same_camera = labels["gallery_cams"] == labels["query_cams"][row.query]
        kept = ~(same_person & same_camera) & (labels["gallery_ids"] != -1)
        truth, score = same_person[kept].numpy(), -distances[row.query][kept].numpy()
        assert row.ap_step == pytest.approx(sklearn_metrics.average_precision_score(truth, score), rel=1e-12)
        precision, recall, _ = sklearn_metrics.precision_recall_curve(truth, score)
        assert row.ap_trapezoid == pytest.approx(sklearn_metrics.auc(recall, precision), rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), chunk=st.integers(1, 12), more=st.integers(1, 12))
def test_chunks_change_nothing(seed, chunk, more):
    g = torch.Generator().manual_seed(seed)
    _, labels = a_gallery(seed)
    # Small whole numbers: their distances are exact, and often equal.
    query, gallery = (torch.randint(-2, 3, (n, 3), generator=g).float() for n in (11, 60))
    names = ("query_ids", "query_cams", "gallery_ids", "gallery_cams")
    query_ids, query_cams, gallery_ids, gallery_cams = (labels[name] for name in names)
    ours = [
        evaluate(query, query_ids, query_cams, gallery, gallery_ids, gallery_cams, chunk=c)
        for c in (chunk, chunk + more)
    ]
    assert_same_scores(*ours)
    assert_same_scores(ours[0], evaluate_distances(reference.squared_distances(query, gallery), **labels))


def test_on_unit_vectors_the_order_is_that_of_the_cosine():
    g = torch.Generator().manual_seed(3)
    _, labels = a_gallery(3)
    query, gallery = (torch.nn.functional.normalize(torch.randn(n, 8, generator=g), dim=1) for n in (11, 60))
    ours = evaluate(
        query.numpy(),
        labels["query_ids"].numpy(),
        labels["query_cams"].tolist(),
        gallery,
        labels["gallery_ids"],
        labels["gallery_cams"],
    )
    assert_same_scores(ours, evaluate_distances(-(query @ gallery.T), **labels))


def one_list(matches):
    """The scores of one query whose ranked list is given."""
    ids = torch.tensor([1 if match else 2 for match in matches])
    n = len(matches)
    return evaluate_distances(
        torch.arange(n).float()[None], torch.tensor([1]), ids, torch.tensor([1]), torch.full((n,), 2)
    )


@given(right=st.integers(1, 8), wrong=st.integers(0, 8))
def test_best_and_worst_list_have_their_closed_forms(right, wrong):
    best = one_list([True] * right + [False] * wrong)
    assert best.rank(1) == best.map_step == best.map_trapezoid == best.minp == 1
    worst = one_list([False] * wrong + [True] * right)
    ranks = [(i, wrong + i) for i in range(1, right + 1)]
    assert worst.map_step == pytest.approx(sum(i / r for i, r in ranks) / right)
    first_terms = [1 if r == 1 else (i - 1) / (r - 1) for i, r in ranks]
    trapezoid = sum((a + i / r) / 2 for a, (i, r) in zip(first_terms, ranks)) / right
    assert worst.map_trapezoid == pytest.approx(trapezoid)
    assert worst.minp == pytest.approx(right / (right + wrong))
    assert worst.cmc.tolist() == [float(k > wrong) for k in range(1, MAX_RANK + 1)]


def test_a_list_done_by_hand():
    # Right at ranks 1, 3 and 4: step (1 + 2/3 + 3/4) / 3; trapezoid (1 + (1/2 + 2/3)/2 + (2/3 + 3/4)/2) / 3.
    scores = one_list([True, False, True, True, False])
    assert scores.map_step == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert scores.map_trapezoid == pytest.approx((1 + (1 / 2 + 2 / 3) / 2 + (2 / 3 + 3 / 4) / 2) / 3)
    assert scores.minp == pytest.approx(3 / 4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), ties=st.booleans())
def test_bounds_and_monotony(seed, ties):
    distances, labels = a_gallery(seed, ties)
    ours = evaluate_distances(distances, **labels)
    assert (ours.cmc.diff() >= 0).all() and ours.cmc[0] >= 0 and ours.cmc[-1] <= 1
    assert 0 < ours.map_trapezoid <= ours.map_step <= 1 and 0 < ours.minp <= 1
    assert ours.map_step == pytest.approx(ours.per_query.ap_step.mean())
    assert ours.rank(5) == pytest.approx((ours.per_query.first_rank <= 5).mean())
    nearer = distances - 10.0 * (labels["query_ids"][:, None] == labels["gallery_ids"])
    assert evaluate_distances(nearer, **labels).map_step == 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), ties=st.booleans())
def test_the_order_of_the_gallery_is_irrelevant(seed, ties):
    distances, labels = a_gallery(seed, ties)
    order = torch.randperm(distances.shape[1], generator=torch.Generator().manual_seed(seed))
    shuffled = labels | {name: labels[name][order] for name in ("gallery_ids", "gallery_cams")}
    assert_same_scores(evaluate_distances(distances, **labels), evaluate_distances(distances[:, order], **shuffled))


def test_at_equal_distance_wrong_images_stand_first():
    _, labels = a_gallery(0)
    ours = evaluate_distances(torch.zeros(11, 60), **labels)
    far = (labels["query_ids"][:, None] == labels["gallery_ids"]).float()
    assert_same_scores(ours, evaluate_distances(far, **labels))


def scores_with_more(distances, labels, person_id, count=4):
    """The scores once `count` images of one id, nearer than all others, join the gallery."""
    more = torch.full((len(distances), count), -5.0, dtype=distances.dtype)
    extra = {"gallery_ids": person_id, "gallery_cams": 2}
    longer = {name: torch.cat([labels[name], torch.full((count,), value)]) for name, value in extra.items()}
    return evaluate_distances(torch.cat([distances, more], dim=1), **labels | longer)


@pytest.mark.parametrize("bad", [0, -1, -7])
def test_a_query_of_junk_or_of_a_distractor_is_refused(bad):
    ids, cams = [1, bad], [1, 1]
    with pytest.raises(ValueError, match=rf"query_ids must be 1 or more, not {bad} \(row 1\)"):
        evaluate_distances(torch.ones(2, 2), ids, ids, cams, [2, 2])
    with pytest.raises(ValueError, match="query_ids"):
        evaluate(torch.ones(2, 2), ids, cams, torch.ones(2, 2), ids, [2, 2])


def test_junk_is_removed_and_distractors_stay():
    distances, labels = a_gallery(1)
    ours = evaluate_distances(distances, **labels)
    assert_same_scores(ours, scores_with_more(distances, labels, -1))
    with_distractors = scores_with_more(distances, labels, 0)
    # Four distractors nearer than anything: every rank moves down by four.
    assert (with_distractors.per_query.first_rank == ours.per_query.first_rank + 4).all()
    assert with_distractors.rank(1) == 0 and with_distractors.left_out == ours.left_out


def test_the_same_camera_counts_neither_for_nor_against():
    labels = dict(
        query_ids=torch.tensor([7]),
        query_cams=torch.tensor([1]),
        gallery_ids=torch.tensor([7, 7, 3, 3]),
        gallery_cams=torch.tensor([1, 2, 1, 2]),
    )
    # Nearest the same camera's picture of person 7 (removed), then camera 2's (right); others on camera 1 are kept.
    ours = evaluate_distances(torch.tensor([[0.0, 2.0, 1.0, 3.0]]), **labels)
    assert ours.per_query.to_dict("records") == [
        {"query": 0, "first_rank": 2, "ap_step": 0.5, "ap_trapezoid": 0.25, "inp": 0.5, "positives": 1}
    ]


def test_queries_without_a_match_are_left_out_and_counted():
    distances, labels = a_gallery(2)
    ours = evaluate_distances(distances, **labels)
    assert ours.left_out >= 1 and 0 not in set(ours.per_query["query"])
    labels["query_ids"].fill_(99)
    with pytest.raises(ValueError, match="none of the 11 queries"):
        evaluate_distances(distances, **labels)


def test_inputs_are_left_as_they_were():
    distances, labels = a_gallery(4)
    before = distances.clone()
    evaluate_distances(distances, **labels)
    evaluate_distances(distances.numpy(), **{name: value.numpy() for name, value in labels.items()})
    assert torch.equal(distances, before)


def test_half_precision_features_and_autocast_are_ranked_in_float32():
    g = torch.Generator().manual_seed(5)
    _, labels = a_gallery(5)
    query, gallery = (torch.randn(n, 8, generator=g).half() for n in (11, 60))
    names = ("query_ids", "query_cams"), ("gallery_ids", "gallery_cams")
    query_labels, gallery_labels = ([labels[name] for name in group] for group in names)
    expected = evaluate(query.float(), *query_labels, gallery.float(), *gallery_labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same_scores(evaluate(query, *query_labels, gallery, *gallery_labels), expected)


def test_percent_gives_the_fields_of_a_run_record():
    percent = one_list([False, True]).percent()
    assert percent == {
        "rank1": 0,
        "rank5": 100,
        "rank10": 100,
        "rank20": 100,
        "map_step": 50,
        "map_trapezoid": 25,
        "minp": 50,
    }
    assert all(type(value) is float for value in percent.values())


GOOD = dict(
    query_features=torch.ones(2, 3),
    query_ids=[1, 2],
    query_cams=[1, 1],
    gallery_features=torch.ones(4, 3),
    gallery_ids=[1, 2, 1, 2],
    gallery_cams=[2, 2, 2, 2],
)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(query_features=torch.ones(2, 5)), "query_features are 5 wide but gallery_features 3"),
        (dict(query_features=torch.ones(2)), "query_features must be a matrix"),
        (dict(gallery_features=torch.ones(0, 3)), "gallery_features must be a matrix"),
        (
            dict(query_features=torch.tensor([[1.0, 2, 3], [1, float("nan"), 3]])),
            "query_features are not finite.*row 1",
        ),
        (dict(gallery_features=torch.full((4, 3), float("inf"))), "gallery_features are not finite.*row 0"),
        (dict(query_ids=[1]), "query_ids must hold 2"),
        (dict(query_cams=[1, 2, 3]), "query_cams must hold 2"),
        (dict(gallery_ids=[[1, 2, 1, 2]]), "gallery_ids must hold 4"),
        (dict(gallery_cams=[1]), "gallery_cams must hold 4"),
        (dict(gallery_ids=[1.0, 2.0, 1.0, 2.0]), "gallery_ids must be integers"),
        (dict(chunk=0), "chunk must be at least 1"),
    ],
)
def test_bad_input_is_named(change, message):
    evaluate(**GOOD)
    with pytest.raises(ValueError, match=message):
        evaluate(**GOOD | change)


def test_distances_that_are_not_finite_are_named():
    distances, labels = a_gallery(6)
    for value in (float("nan"), float("inf"), -float("inf")):
        broken = distances.clone()
        broken[7, 5] = value
        with pytest.raises(ValueError, match="distances are not finite, first in row 7"):
            evaluate_distances(broken, **labels, chunk=3)

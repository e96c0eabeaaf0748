"""Ranked galleries to look at: who is found, and what picture and page say about it."""

import base64
import io
import os
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from people import NETWORK, SIZE, pairs, write_set
from PIL import Image

from paul import checkpoint, cli
from paul.data.datasets import ReidDataset
from paul.patchnet import PatchNet
from paul.retrieval.embeddings import listed
from paul.retrieval.ranked_lists import OTHER, SAME, page, picture, rank, write_ranking


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("sets") / "mine", {"gallery": [*pairs(range(1, 5)), (-1, 1), (0, 2)]})


@pytest.fixture(scope="module")
def gallery(folder):
    return listed([folder])


@pytest.fixture(scope="module")
def vectors(gallery):
    """Images of a person lie around a direction of their own."""
    rng = np.random.default_rng(0)
    towards = rng.normal(size=(10, 16))
    return np.float32(towards[gallery["person_id"]] + 0.4 * rng.normal(size=(len(gallery), 16)))


def nearest_by_hand(vectors, gallery, query, k, same_camera=True):
    """Positions by cosine, the query itself left out."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    order = np.argsort(-(unit @ unit[query]), kind="stable")
    camera = gallery["camera_id"].to_numpy()
    return [row for row in order if row != query and (same_camera or camera[row] != camera[query])][:k]


@pytest.mark.parametrize("other_cameras", [False, True])
def test_a_query_finds_its_nearest_and_never_itself(vectors, gallery, other_cameras):
    ranking = rank(vectors, gallery, vectors, gallery, 3, other_cameras)
    for query in range(len(gallery)):
        found = ranking.found[ranking.found["query"] == query]
        expected = nearest_by_hand(vectors, gallery, query, 3, not other_cameras)
        assert found["rank"].tolist() == [1, 2, 3]
        assert found["file"].tolist() == gallery["file"].iloc[expected].tolist()
        assert found["camera_id"].tolist() == gallery["camera_id"].iloc[expected].tolist()
        assert found["similarity"].is_monotonic_decreasing
    assert ranking.images == len(gallery) and ranking.method == "exact"


def test_an_image_under_another_name_is_still_itself(vectors, gallery, folder, tmp_path, monkeypatch):
    os.link(gallery["file"][0], tmp_path / "linked.png")
    (tmp_path / "symbolic.png").symlink_to(gallery["file"][0])
    monkeypatch.chdir(folder.parent)
    for name in (tmp_path / "linked.png", tmp_path / "symbolic.png", os.path.relpath(gallery["file"][0])):
        ranking = rank(vectors[:1], listed([name]), vectors, gallery, len(gallery))
        assert gallery["file"][0] not in ranking.found["file"].tolist() and len(ranking.found) == len(gallery) - 1


def test_other_cameras_need_the_query_s_camera(vectors, gallery, tmp_path):
    loose = pd.DataFrame({"file": ["loose.png"], "person_id": [-1], "camera_id": [-1]})
    with pytest.raises(ValueError, match="camera of loose.png is not known"):
        rank(vectors[:1], loose, vectors, gallery, other_cameras=True)
    alone = gallery[gallery["camera_id"] == 1].reset_index(drop=True)
    assert not len(rank(vectors[:1], alone[:1], vectors[: len(alone)], alone, other_cameras=True).found)


def test_the_picture_frames_who_is_known_and_shows_all(vectors, gallery):
    ranking = rank(vectors[:2], gallery[:2], vectors, gallery, 4)
    strip = picture(ranking)
    pixels = np.asarray(strip)
    framed = {
        name: (pixels == tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))).all(2).any()
        for name, colour in (("same", SAME), ("other", OTHER))
    }
    assert framed == {"same": True, "other": True}
    unknown = gallery.assign(person_id=-1)
    pixels = np.asarray(picture(rank(vectors[:2], unknown[:2], vectors, unknown, 4)))
    assert not any(
        (pixels == tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))).all(2).any() for colour in (SAME, OTHER)
    )
    wider, taller = (picture(rank(vectors[:q], gallery[:q], vectors, gallery, k)) for q, k in ((2, 6), (3, 4)))
    assert wider.width > strip.width and wider.height == strip.height and taller.height > strip.height


def test_too_many_queries_for_a_picture_ask_for_a_page(vectors, gallery, tmp_path):
    many = pd.concat([gallery] * 6, ignore_index=True)
    ranking = rank(np.tile(vectors, (6, 1)), many, vectors, gallery, 2)
    with pytest.raises(ValueError, match="60 queries are too many .*-o page.html"):
        write_ranking(ranking, tmp_path / "ranked.png")
    assert not list(tmp_path.iterdir())
    write_ranking(ranking, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("<section>") == 60
    with pytest.raises(ValueError, match=".png or .html"):
        write_ranking(ranking, tmp_path / "ranked.gif")


class Reader(HTMLParser):
    """What a browser would see: tags that close, images, links, text."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.addresses, self.text, self.tags = [], [], [], "", set()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.addresses += [attributes[name] for name in ("href", "src", "action", "data") if name in attributes]
        if tag == "img":
            self.images.append(attributes)
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_one_file_with_its_images_inside(vectors, gallery):
    reader = Reader()
    reader.feed(page(rank(vectors, gallery, vectors, gallery, 3), model="a <model>"))
    assert not reader.open and reader.tags.isdisjoint({"script", "link", "iframe"})
    assert len(reader.images) == len(gallery) * 4 and all(
        a.startswith("data:image/jpeg;base64,") for a in reader.addresses
    )
    for image in reader.images[:5]:
        Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))).load()
    assert "a <model>" in reader.text and "prefers-color-scheme: dark" in page(rank(vectors, gallery, vectors, gallery))
    # junk and distractors are nobody's match: their lines say neither
    junk = page(rank(vectors, gallery.assign(person_id=[-1, 0] * 5), vectors, gallery, 3))
    assert "<b>same</b> " in junk and junk.count("<b>") == 2  # in the sentence that explains them


@pytest.mark.parametrize(
    "name",
    ["<img src=x onerror=alert(1)>.png", "a \"quoted\" & 'name'.png", "人物 ü.png"],
    ids=["tag", "quotes", "letters"],
)
def test_file_names_are_shown_and_never_obeyed(name, vectors, gallery, tmp_path):
    file = tmp_path / name
    Image.new("RGB", (20, 40)).save(file, "PNG")
    frame = pd.concat(
        [gallery, pd.DataFrame({"file": [str(file)], "person_id": [-1], "camera_id": [-1]})], ignore_index=True
    )
    every = np.vstack([vectors, vectors[:1]])
    ranking = rank(every[-1:], frame[-1:].reset_index(drop=True), every, frame, 3)
    reader = Reader()
    reader.feed(page(ranking).encode().decode())
    assert name in reader.text and reader.images[0]["alt"] == name and len(reader.images) == 4
    write_ranking(ranking, tmp_path / "page.html")
    write_ranking(ranking, tmp_path / "ranked.png")


def test_an_image_that_has_gone_leaves_a_gap(vectors, gallery):
    gone = gallery.assign(file=[f"gone {n}.png" for n in range(len(gallery))])
    ranking = rank(vectors[:1], gallery[:1], vectors, gone, 3)
    assert page(ranking).count("not there") == 3 and picture(ranking).size[0] > 200
    assert re.search(r"gone \d", page(ranking))


# --- which images, how many ---


def test_images_of_unknown_cameras_are_no_images_of_other_cameras(vectors, gallery):
    unsure = gallery.assign(camera_id=gallery["camera_id"].where(gallery.index % 3 > 0, -1))
    known = unsure[unsure["camera_id"] >= 0]
    with pytest.warns(UserWarning, match=f"left out {len(unsure) - len(known)} images .* camera is not known"):
        ranking = rank(vectors[known.index], known, vectors, unsure, 20, other_cameras=True)
    for number, (_, query) in enumerate(known.iterrows()):
        found = ranking.found[ranking.found["query"] == number]
        assert sorted(found["file"]) == sorted(known["file"][known["camera_id"] != query["camera_id"]])
    with pytest.raises(ValueError, match="no image of the gallery says from which camera it is"):
        rank(vectors[:1], gallery[:1], vectors, gallery.assign(camera_id=-1), other_cameras=True)


@pytest.mark.parametrize("k", [0, -3])
def test_less_than_one_image_per_query_is_refused_with_the_number_given(k, vectors, gallery):
    with pytest.raises(ValueError, match=f"k must be at least 1, got {k}$"):
        rank(vectors[:1], gallery[:1], vectors, gallery, k)


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    """A prepared set with training images, queries and a gallery; a set without splits of its own; a checkpoint."""
    folder = tmp_path_factory.mktemp("parted")
    splits = {"train": pairs([1, 2, 3]), "query": [(4, 1)], "gallery": [(4, 2), (5, 1), (5, 2), (6, 1)]}
    write_set(folder / "set", {**splits, "val_query": [(7, 1)], "val_gallery": [(7, 2), (8, 2)]})
    write_set(folder / "crops", {"train": pairs([1, 2])}, seed=1)
    torch.manual_seed(0)
    network = PatchNet(NETWORK).to_target()
    network.image_size = SIZE
    checkpoint.save(folder / "model.pt", network)
    return folder


def test_of_a_prepared_set_one_split_is_listed_where_there_is_one(parted):
    index = ReidDataset.load(parted / "set").frame

    def files(split):
        return [str(parted / "set" / name) for name in index["file"][index["split"] == split]]

    assert listed([parted / "set"], "gallery")["file"].tolist() == files("gallery")
    assert len(listed([parted / "set"])) == len(index)
    with pytest.raises(ValueError, match="crops/index.csv has no images in split 'gallery'; it has .'train'."):
        listed([parted / "set", parted / "crops"], "gallery")
    both = listed([parted / "set", parted / "crops"], "gallery", strict=False)
    assert both["file"].tolist() == files("gallery") + listed([parted / "crops"])["file"].tolist()
    one = files("train")[0]
    assert listed([one], "gallery")["file"].tolist() == [one]  # named by itself


@pytest.mark.parametrize(
    ("arguments", "counts"),
    [([], (1, 4)), (["--splits", "train,gallery"], (6, 4)), (["--splits", "val_query,val_gallery"], (1, 2))],
)
def test_rank_asks_queries_and_searches_the_gallery(arguments, counts, parted, tmp_path, capsys):
    command = ["rank", "--query", parted / "set", "--gallery", parted / "set", "--init", parted / "model.pt"]
    command += ["--device", "cpu", "-o", tmp_path / "page.html", *arguments]
    assert cli.main([str(part) for part in command]) == 0
    asked, searched = counts
    assert f": {asked} queries against {searched} images, exact" in capsys.readouterr().out


def test_a_features_file_of_one_split_is_searched_whole(parted, tmp_path, capsys):
    network = ["--init", parted / "model.pt", "--device", "cpu"]
    for command in (
        ["embed", parted / "set", "--split", "gallery", *network, "-o", tmp_path / "f.npz"],
        ["rank", "--query", parted / "set", "--gallery", tmp_path / "f.npz", *network, "-o", tmp_path / "page.html"],
    ):
        assert cli.main([str(part) for part in command]) == 0
    assert "1 queries against 4 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-k", "0"], "-k 0: ask for at least one image per query"),
        (["-k", "-3"], "-k -3: ask for at least one"),
        (["--splits", "gallery"], "--splits gallery: name two, such as query,gallery"),
        (["--splits", "query,galery"], "set/index.csv has no images in split 'galery'"),
        (["--image-size", "99999x9"], "--image-size 99999x9: write ROWSxCOLUMNS, such as 384x128, each at most 4096"),
    ],
)
def test_what_cannot_be_ranked_is_said_in_a_line(arguments, words, parted, tmp_path, capsys):
    command = ["rank", "--query", parted / "set", "--gallery", parted / "set", "--init", parted / "model.pt"]
    command += ["--device", "cpu", "-o", tmp_path / "page.html", *arguments]
    assert cli.main([str(part) for part in command]) == 1
    message = capsys.readouterr().err
    assert message.startswith("paul rank: ") and words in message and message.count("\n") == 1
    assert not list(tmp_path.iterdir())

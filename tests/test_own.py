"""Describing one's own images: what goes into an Extractor, what comes out, and what the features file keeps."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from people import NETWORK, SIZE, at_most, pairs, picture, write_set
from PIL import Image

import paul
from paul import checkpoint, cli
from paul.data.images import read_image
from paul.data.passes import extract
from paul.patchnet import PatchNet
from paul.retrieval import embeddings
from paul.retrieval.embeddings import embed, listed
from paul.retrieval.extractor import Extractor
from paul.retrieval.features import read_embeddings

WIDTH = NETWORK.num_patches * NETWORK.dim


@pytest.fixture(scope="module")
def model():
    """A network whose batch norms have seen something, so that features aren't all alike."""
    torch.manual_seed(0)
    model = PatchNet(NETWORK, num_classes=3).to_target().to(memory_format=torch.channels_last)  # as training has it
    model.generator.fc_loc[2].weight.data.normal_(std=0.01)
    model.train()
    model(torch.randn(16, 3, *SIZE))
    return model.eval()


@pytest.fixture(scope="module")
def extractor(model):
    return Extractor(model, SIZE, batch=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A prepared set: 12 images of 6 people, by two cameras, of another size than the network's."""
    return write_set(tmp_path_factory.mktemp("sets") / "mine", {"train": pairs(range(1, 7))}, size=(50, 30))


@pytest.fixture(scope="module")
def files(folder):
    return sorted(folder.rglob("*.png"))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.pt"
    checkpoint.save(path, model)
    return path


def test_importing_paul_waits_for_nothing():
    code = "import sys, paul; assert 'torch' not in sys.modules; from paul import Extractor; print(Extractor.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.strip() == "Extractor" and paul.Extractor is Extractor
    with pytest.raises(AttributeError, match="no attribute 'Extracter'"):
        paul.Extracter


def test_descriptors_are_those_of_the_network_on_resized_images(model, extractor, files):
    images = torch.stack([torch.tensor(read_image(file, SIZE)).permute(2, 0, 1) for file in files])
    torch.testing.assert_close(extractor(files), extract(model, images), rtol=0, atol=1e-6)
    assert extractor(files).dtype == torch.float32 and extractor(files).shape == (12, WIDTH)
    torch.testing.assert_close(extractor(files).norm(dim=1), torch.full((12,), math.sqrt(NETWORK.num_patches)))


@pytest.mark.parametrize(
    "kind",
    [
        str,
        Path,
        Image.open,
        read_image,
        lambda f: torch.tensor(read_image(f)).permute(2, 0, 1),
        lambda f: (torch.tensor(read_image(f)).permute(2, 0, 1) / 255).double(),
        lambda f: Image.open(f).convert("RGBA"),
    ],
    ids=["str", "Path", "PIL", "array", "tensor", "float tensor", "PIL with alpha"],
)
def test_the_same_pixels_give_the_same_descriptor_whatever_their_kind(kind, extractor, files):
    expected = extractor(files[:5])
    assert torch.equal(extractor([kind(file) for file in files[:5]]), expected)
    assert torch.equal(extractor(kind(file) for file in files[:5]), expected)  # read as it goes
    torch.testing.assert_close(extractor(kind(files[3])), expected[3:4])


def test_stacked_images_pass_as_one_tensor_or_array(extractor, files):
    array = np.stack([read_image(file) for file in files])
    tensor = torch.tensor(array).permute(0, 3, 1, 2)
    small = torch.stack([torch.tensor(read_image(file, SIZE)).permute(2, 0, 1) for file in files])
    expected = extractor(files)
    for images in (array, tensor, tensor / 255, small, small / 255, list(small)):
        assert torch.equal(extractor(images), expected)


def test_sizes_and_kinds_may_be_mixed(extractor, files):
    rng = np.random.default_rng(0)
    items = [files[0], picture(1, 1, rng, (33, 70)), Image.new("L", (9, 200), 77), torch.zeros(3, 5, 4)]
    mixed = extractor(items)
    for place, item in enumerate(items):
        torch.testing.assert_close(mixed[place : place + 1], extractor(item), rtol=0, atol=1e-6)


def test_nothing_in_nothing_out(extractor):
    assert extractor([]).shape == (0, WIDTH)


@given(count=st.integers(1, 9), batch=st.integers(1, 5))
def test_any_batch_size_describes_every_image_in_order(model, files, count, batch):
    few = Extractor(model, SIZE, batch=batch)(files[:count])
    one_by_one = torch.cat([Extractor(model, SIZE)(file) for file in files[:count]])
    torch.testing.assert_close(few, one_by_one, rtol=0, atol=1e-6)


BROKEN = {
    "a missing file": ("nowhere.png", "cannot read nowhere.png"),
    "grey array": (np.zeros((5, 4), np.uint8), r"uint8 \[H, W, 3\], got uint8 \(5, 4\)"),
    "float array": (np.zeros((5, 4, 3)), "got float64"),
    "empty array": (np.zeros((0, 4, 3), np.uint8), "got uint8"),
    "values over one": (torch.full((3, 5, 4), 2.0), r"must lie in \[0, 1\], got 2 to 2"),
    "not a number": (torch.full((3, 5, 4), torch.nan), r"must lie in \[0, 1\]"),
    "whole numbers": (torch.zeros(3, 5, 4, dtype=torch.int64), "got torch.int64"),
    "channels last": (torch.zeros(5, 4, 3), r"a tensor must be \[3, H, W\]"),
    "a number": (7, "a int is no path"),
}


@pytest.mark.parametrize("item, message", BROKEN.values(), ids=BROKEN)
def test_an_item_that_is_no_image_is_named_by_its_number(item, message, extractor, files):
    with pytest.raises((ValueError, TypeError), match=f"^image 6: .*{message}"):
        extractor([*files[:6], item, *files[6:]])


def test_a_row_out_of_range_in_a_stack_is_named(extractor):
    images = torch.zeros(5, 3, *SIZE)
    images[3, 0, 0, 0] = -0.5
    with pytest.raises(ValueError, match="^image 3: .*got -0.5 to 0"):
        extractor(images)


def test_a_truncated_file_is_named(extractor, files, tmp_path):
    broken = tmp_path / "half.png"
    broken.write_bytes(files[0].read_bytes()[:-40])
    for item in (broken, Image.open(broken)):
        with pytest.raises(ValueError, match="^image 1: cannot"):
            extractor([files[0], item])


def test_a_checkpoint_by_its_path(model, saved, extractor, files):
    again = Extractor(saved, SIZE, device="cpu")
    assert torch.equal(again(files[:4]), extractor(files[:4])) and again.fingerprint == extractor.fingerprint
    assert Extractor(model, (SIZE[0] + 8, SIZE[1])).fingerprint != extractor.fingerprint
    with pytest.raises(FileNotFoundError, match="nowhere.pt"):
        Extractor("nowhere.pt", SIZE)


def test_an_unknown_image_size_asks_for_one():
    with pytest.raises(ValueError, match=r"the network does not say which image size .* image_size=\(rows, columns\)"):
        Extractor(PatchNet(NETWORK))
    with pytest.raises(ValueError, match="two whole numbers"):
        Extractor(PatchNet(NETWORK), (0, 5))


def test_the_network_s_own_image_size_is_the_default():
    model = PatchNet(NETWORK)
    model.image_size = SIZE
    assert Extractor(model).image_size == SIZE and Extractor(model, (48, 24)).image_size == (48, 24)


# ---------------------------------------------------------------------------------------------------- listing, features


def test_listing_takes_files_folders_patterns_and_sets_and_knows_their_ids(folder, files, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    everything = listed([folder])
    index = pd.read_csv(folder / "index.csv")
    assert everything["file"].tolist() == [str(folder / name) for name in index["file"]]
    for names in (
        ["mine"],
        ["mine/bounding_box_train"],
        ["mine/**/*.png"],
        ["mine", "mine/bounding_box_train"],
        [os.path.relpath(file) for file in files],
    ):
        frame = listed(names).sort_values("file")
        assert [os.path.abspath(file) for file in frame["file"]] == [str(file) for file in files], names
        assert frame["person_id"].tolist() == [int(file.name[:4]) for file in files]
        assert frame["camera_id"].tolist() == [int(file.name[6]) for file in files]
    loose = tmp_path / "a folder" / "b" / "PICTURE.JPG"
    loose.parent.mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(loose, "JPEG")
    (loose.parent / "notes.txt").write_text("no image")
    (loose.parent / ".hidden.png").write_bytes(b"")
    frame = listed([tmp_path])
    assert frame.values.tolist() == [[str(loose), -1, -1]]
    for name, message in (("nothing*.png", "no file fits it"), (tmp_path / "gone", "no such file")):
        with pytest.raises(ValueError, match=message):
            listed([name])
    loose.rename(os.path.join(tmp_path, os.fsdecode(b"\xff.png")))
    with pytest.raises(ValueError, match="not valid text; rename it"):
        listed([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no images in this folder"):
        listed([tmp_path / "empty"])


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_a_features_file_gives_back_files_ids_and_descriptors(suffix, extractor, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "PART", 5)
    frame, path = listed([folder]), tmp_path / f"features{suffix}"
    assert embed(extractor, frame, path) == 12
    found = read_embeddings(path)
    pd.testing.assert_frame_equal(found.frame, frame)
    np.testing.assert_allclose(found.vectors, extractor(frame["file"]).numpy(), rtol=0, atol=1e-6)
    assert found.model == extractor.fingerprint
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # no part, no lock


def test_parquet_is_a_plain_table_for_other_tools(extractor, folder, tmp_path):
    embed(extractor, listed([folder]), tmp_path / "features.parquet")
    frame = pd.read_parquet(tmp_path / "features.parquet")
    assert list(frame) == ["file", "person_id", "camera_id", "features"]
    assert np.stack(frame["features"]).shape == (12, WIDTH) and frame["features"][0].dtype == np.float32


def test_interrupted_embedding_goes_on_and_a_finished_one_is_left_alone(extractor, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "PART", 5)
    frame, path = listed([folder]), tmp_path / "features.npz"
    described = []

    def counted(items, stop_at):
        if len(described) >= stop_at:
            raise KeyboardInterrupt
        described.extend(items)
        return extractor(items)

    for stop_at in (5, 10):

        class Stopped:
            width, fingerprint = extractor.width, extractor.fingerprint

            def __call__(self, items, bar):
                return counted(items, stop_at)

        with pytest.raises(KeyboardInterrupt):
            embed(Stopped(), frame, path)
        assert not path.exists()
    stop_at = 99
    assert embed(Stopped(), frame, path) == 12
    assert described == frame["file"].tolist()  # each once, none twice
    written = path.stat().st_mtime_ns
    assert embed(Stopped(), frame, path) == 12 and path.stat().st_mtime_ns == written and len(described) == 12
    os.utime(frame["file"][0], ns=(1, 1))
    assert embed(Stopped(), frame, path) == 12 and len(described) == 24  # an image changed


def test_unreadable_images_stop_or_are_left_out(extractor, folder, files, tmp_path):
    (tmp_path / "a.png").write_bytes(files[0].read_bytes())
    (tmp_path / "b.png").write_bytes(b"no image")
    frame = listed([tmp_path])
    with pytest.raises(ValueError, match="cannot read .*b.png"):
        embed(extractor, frame, tmp_path / "f.npz")
    with pytest.warns(UserWarning, match="left out .*b.png"):
        assert embed(extractor, frame, tmp_path / "f.npz", skip_unreadable=True) == 1
    assert read_embeddings(tmp_path / "f.npz").frame["file"].tolist() == [str(tmp_path / "a.png")]


@pytest.fixture
def mixed(files, tmp_path):
    """A folder of which only a.png and z.png are images: a pipe, a link that leads nowhere, a folder, PostScript."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("a.png", "z.png"):
        (folder / name).write_bytes(files[0].read_bytes())
    os.mkfifo(folder / "pipe.png")
    (folder / "link.png").symlink_to("nowhere.png")
    (folder / "script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    return folder


@pytest.mark.parametrize("whole", ["mixed", "mixed/*g"])
def test_pipes_and_links_to_nowhere_are_named_or_left_out(whole, extractor, mixed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("starts a program"))
    frame = listed([whole])
    assert [Path(file).name for file in frame["file"]] == ["a.png", "link.png", "pipe.png", "script.jpg", "z.png"]
    with at_most(20, mixed / "pipe.png"):
        with pytest.raises(ValueError, match=r"^image 1: cannot read mixed/link.png: .*No such file"):
            embed(extractor, frame, "f.npz")
        with pytest.warns(UserWarning) as said:
            assert embed(extractor, frame, "f.npz", skip_unreadable=True) == 2
    named = [str(warning.message) for warning in said if "left out" in str(warning.message)]
    assert [text.split(":")[0] for text in named] == [
        f"left out mixed/{name}" for name in ("link.png", "pipe.png", "script.jpg")
    ]
    found = read_embeddings("f.npz")
    assert found.frame["file"].tolist() == ["mixed/a.png", "mixed/z.png"]
    np.testing.assert_allclose(found.vectors, extractor([mixed / "a.png"] * 2).numpy(), rtol=0, atol=1e-6)


def test_a_pipe_by_its_own_name_is_named(extractor, mixed, tmp_path):
    with at_most(20, mixed / "pipe.png"):
        for describe in (extractor, lambda names: embed(extractor, listed(names), tmp_path / "f.npz")):
            with pytest.raises(ValueError, match="image 0: cannot read .*pipe.png: it is a pipe, no regular file"):
                describe([mixed / "pipe.png"])


@pytest.mark.parametrize("when, kept", [("before", 2), ("after", 3)])
def test_an_image_that_vanishes_while_others_are_read(when, kept, extractor, files, tmp_path, monkeypatch, recwarn):
    """Gone before it is opened, it is left out; gone once it was read, nobody wants it a second time."""
    folder = tmp_path / "going"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(files[0].read_bytes())

    def read(path, size=None):
        going = folder / "b.png" if Path(path).name == "b.png" else folder / "none"
        if when == "before":
            going.unlink(missing_ok=True)
        pixels = read_image(path, size)
        going.unlink(missing_ok=True)
        return pixels

    for module in ("embeddings", "extractor"):
        monkeypatch.setattr(f"paul.retrieval.{module}.read_image", read)
    frame = listed([folder])
    assert embed(extractor, frame, tmp_path / "f.npz", skip_unreadable=True) == kept
    said = [str(warning.message) for warning in recwarn if "left out" in str(warning.message)]
    assert len(said) == 3 - kept and all("b.png: [Errno 2] No such file" in text for text in said)


def test_a_file_and_a_pil_image_of_it_are_described_alike_in_any_mode(extractor, tmp_path):
    """Of 16 bits, floats, with transparency, lying on its side: what a path gives, an opened image gives."""
    pixels, exif = picture(1, 1, np.random.default_rng(3), SIZE), Image.Exif()
    exif[0x0112] = 6
    deep = pixels[..., 0].astype(np.uint16) * 257
    kinds = {
        "deep.png": Image.frombytes("I;16", SIZE[::-1], deep.tobytes()),
        "float.tif": Image.fromarray(np.float32(pixels[..., 0]) / 255),
        "alpha.png": Image.merge("RGBA", (*Image.fromarray(pixels).split(), Image.fromarray(pixels[..., 0]))),
        "side.png": Image.fromarray(np.rot90(pixels).copy()),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name, **({"exif": exif} if name == "side.png" else {}))
    grey = np.repeat(pixels[..., :1], 3, axis=2)
    share = pixels[..., :1] / 255
    expected = extractor([grey, grey, np.uint8(np.rint(pixels * share + 128 * (1 - share))), pixels])
    found = extractor([tmp_path / name for name in kinds])
    assert torch.equal(found, extractor([Image.open(tmp_path / name) for name in kinds]))
    assert torch.equal(found[[0, 1, 3]], expected[[0, 1, 3]])
    torch.testing.assert_close(found[2], expected[2], rtol=0, atol=0.05)  # a level here and there
    for image in (Image.new("I", (9, 9)), Image.new("F", (9, 9), 255)):
        with pytest.raises(ValueError, match="^image 0: cannot be decoded: its pixels are .*save it with 8 bits"):
            extractor(image)


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_damaged_features_files_are_named(suffix, extractor, folder, tmp_path):
    path = tmp_path / f"features{suffix}"
    with pytest.raises(FileNotFoundError, match="paul embed"):
        read_embeddings(path)
    embed(extractor, listed([folder]), path)
    whole = path.read_bytes()
    for damaged in (whole[:-30], whole[:50], b"", b"hello"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{path} is no features file, or damaged"):
            read_embeddings(path)
    assert embed(extractor, listed([folder]), path) == 12  # replaced by a whole one
    assert len(read_embeddings(path).vectors) == 12
    pd.DataFrame({"file": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="no features file"):
        read_embeddings(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="ends in .parquet or .npz"):
        embed(extractor, listed([folder]), tmp_path / "features.csv")


def test_two_writers_of_one_features_file_do_not_mix(extractor, folder, tmp_path):
    from filelock import FileLock

    path = tmp_path / "f.npz"
    (tmp_path / ".f.npz.partial").mkdir()
    with FileLock(tmp_path / ".f.npz.partial/.lock"), pytest.raises(RuntimeError, match="another process is writing"):
        embed(extractor, listed([folder]), path)


# ----------------------------------------------------------------------------------------------------------- commands


@pytest.fixture
def run(capsys):
    def command(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err.split("\r")[-1]

    return command


def test_embed_as_a_user_types_it(run, saved, folder, tmp_path):
    size = f"{SIZE[0]}x{SIZE[1]}"
    arguments = ["embed", folder, "--init", saved, "--image-size", size, "--device", "cpu"]
    code, out, err = run(*arguments, "-o", tmp_path / "deep/features.parquet")
    assert (code, out) == (0, f"{tmp_path}/deep/features.parquet: 12 images, {WIDTH} numbers each\n"), err
    code, _, err = run(*arguments, "-o", tmp_path / "features.txt")
    assert code == 1 and err == f"paul embed: {tmp_path}/features.txt: a features file ends in .parquet or .npz\n"
    code, _, err = run("embed", folder, "--init", saved, "--image-size", "96", "-o", tmp_path / "f.npz")
    assert code == 1 and "write ROWSxCOLUMNS" in err

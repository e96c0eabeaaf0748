"""Decoding: sizes and colours, files that cannot be read, and the two scales of pixel values."""

import ast
import io
import os
import shutil
import socket
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from people import at_most, picture, write_set
from PIL import Image

from paul.data.batches import on_device
from paul.data.datasets import ReidDataset
from paul.data.images import FORMATS, read_image, readable, to_rgb
from paul.data.pixels import Pixels, load_images, load_pixels
from paul.data.transforms import normalize, unit_range


@pytest.fixture
def split(tmp_path):
    folder = write_set(tmp_path, {"train": [(1, 1), (1, 2), (2, 1), (2, 2)]})
    return ReidDataset.load(folder).split("train")


def test_pixels_are_the_files(split):
    images = load_images(split, (40, 24))
    assert images.shape == (4, 3, 40, 24) and images.dtype == torch.uint8
    rng = np.random.default_rng(0)
    for image, (person, camera) in zip(images, [(1, 1), (1, 2), (2, 1), (2, 2)]):
        assert np.array_equal(image.permute(1, 2, 0), picture(person, camera, rng))


def test_another_size_is_pillows_bilinear(split):
    with Image.open(split.files[2]) as image:
        expected = np.asarray(image.resize((10, 30), Image.Resampling.BILINEAR))
    assert np.array_equal(load_images(split, (30, 10))[2].permute(1, 2, 0), expected)


# --- modes ---


RNG = np.random.default_rng(5)
COLOURS = RNG.integers(0, 256, (20, 33, 3), dtype=np.uint8)
GREYS = COLOURS[..., 0].copy()
ALPHA = RNG.integers(0, 256, (20, 33), dtype=np.uint8)
ALPHA[:, :5], ALPHA[:, 5:9] = 0, 255
DEEP = RNG.integers(0, 2**16, (20, 33), dtype=np.uint16)
GROUND = 128


def grey(values):
    return np.repeat(np.asarray(values)[..., None], 3, axis=2)


def laid_upon_grey(pixels, alpha=ALPHA):
    share = alpha[..., None] / 255
    return pixels * share + GROUND * (1 - share)


def paletted(with_alpha=False):
    image = Image.frombytes("P", (33, 20), (GREYS % 8).tobytes())
    image.putpalette(COLOURS[0, :8].tobytes())
    if with_alpha:
        image = image.convert("PA")
        image.putalpha(Image.fromarray(ALPHA))
    return image


def deep(mode="I;16", values=DEEP):
    return Image.frombytes(mode, (33, 20), values.astype(">u2" if mode.endswith("B") else "<u2").tobytes())


def hue(colour, saturation, value):
    sector, share = divmod(colour / 255 * 6, 1)
    low, down, up = value * (1 - saturation), value * (1 - share * saturation), value * (1 - (1 - share) * saturation)
    return [(value, up, low), (down, value, low), (low, value, up), (low, down, value), (up, low, value),
            (value, low, down)][int(sector) % 6]  # fmt: skip


def ycc():
    y, cb, cr = COLOURS.astype(float).transpose(2, 0, 1) - np.array([0, 128, 128])[:, None, None]
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=2)
    return rgb.clip(0, 255)


def lightness():
    """sRGB greys of CIE lightness (L* = 100 * GREYS / 255), a* = b* = 0."""
    f = (100 * (GREYS / 255) + 16) / 116
    linear = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    return grey(255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clip(1e-9) ** (1 / 2.4) - 0.055))


def of_bytes(mode, *bands):
    return Image.frombytes(mode, (33, 20), np.stack(bands, axis=2).tobytes())


NONE = np.zeros_like(GREYS)
CMY, K = 255 - COLOURS // 2, NONE
HSV = [hue(*triple) for triple in (COLOURS.reshape(-1, 3) / [1, 255, 1]).tolist()]
PREMULTIPLIED = np.rint(COLOURS * (ALPHA[..., None] / 255)).astype(np.uint8)
# image, pixels by hand, how many of 256 levels they may differ by
MODES = {
    "1": (lambda: Image.fromarray(GREYS > 127), grey(255 * (GREYS > 127)), 0),
    "L": (lambda: Image.fromarray(GREYS), grey(GREYS), 0),
    "P": (paletted, COLOURS[0, :8][GREYS % 8], 0),
    "RGB": (lambda: Image.fromarray(COLOURS), COLOURS, 0),
    "RGBX": (lambda: four("RGBX", COLOURS, ALPHA), COLOURS, 0),
    "YCbCr": (lambda: Image.frombytes("YCbCr", (33, 20), COLOURS.tobytes()), ycc(), 2),
    "CMYK": (lambda: four("CMYK", CMY, K), 255 - CMY, 0),
    "HSV": (lambda: Image.frombytes("HSV", (33, 20), COLOURS.tobytes()), np.reshape(HSV, COLOURS.shape), 3),
    "LAB": (lambda: of_bytes("LAB", GREYS, NONE, NONE), lightness(), 2),
    "LA": (lambda: of_bytes("LA", GREYS, ALPHA), laid_upon_grey(grey(GREYS)), 1),
    "PA": (lambda: paletted(True), laid_upon_grey(COLOURS[0, :8][GREYS % 8]), 1),
    "RGBA": (lambda: four("RGBA", COLOURS, ALPHA), laid_upon_grey(COLOURS), 1),
    "La": (lambda: of_bytes("La", PREMULTIPLIED[..., 0], ALPHA), laid_upon_grey(grey(GREYS)), 2),
    "RGBa": (lambda: four("RGBa", PREMULTIPLIED, ALPHA), laid_upon_grey(COLOURS), 2),
    "I;16": (deep, grey(DEEP // 256), 0),
    "I;16L": (lambda: deep("I;16L"), grey(DEEP // 256), 0),
    "I;16B": (lambda: deep("I;16B"), grey(DEEP // 256), 0),
    "I;16N": (lambda: deep("I;16N"), grey(DEEP // 256), 0),
    "F": (lambda: Image.fromarray(np.float32(DEEP / 65535)), grey(np.rint(np.float32(DEEP / 65535) * 255)), 0),
}  # fmt: skip


def four(mode, three, last):
    return Image.frombytes(mode, (33, 20), np.concatenate([three, last[..., None]], axis=2).tobytes())


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_becomes_rgb_by_its_rule(mode):
    image, expected, tolerance = MODES[mode]
    image = image()
    assert image.mode == mode
    found = to_rgb(image)
    assert found.mode == "RGB" and np.abs(np.asarray(found, float) - expected).max() <= tolerance


def test_every_mode_of_pillow_has_a_rule():
    assert {*Image.MODES} - {"I"} <= set(MODES)


@pytest.mark.parametrize(
    "mode, name",
    [("L", "a.jpg"), ("RGB", "a.webp"), ("CMYK", "a.jpg"), ("1", "a.png"), ("P", "a.bmp"), ("LAB", "a.tif"),
     ("LA", "a.png"), ("RGBA", "a.tif"), ("I;16", "a.png"), ("I;16", "a.tif"), ("I;16", "a.pgm"), ("I;16B", "a.tif"),
     ("F", "a.tif")],
)  # fmt: skip
def test_files_of_each_mode_are_read_by_its_rule(mode, name, tmp_path):
    image, expected, tolerance = MODES[mode]
    image().save(tmp_path / name, **({"quality": 100} if name[-4:] in (".jpg", "webp") else {}))
    if name[-4:] in (".jpg", "webp"):  # lossy
        with Image.open(tmp_path / name) as image:
            expected, tolerance = np.asarray(image.convert("RGB")), 0
    assert np.abs(read_image(tmp_path / name) - np.float64(expected)).max() <= tolerance


def test_a_thermal_picture_keeps_its_greys(tmp_path):
    values = np.linspace(0, 38000, 660).astype(np.uint16).reshape(20, 33)
    deep(values=values).save(tmp_path / "thermal.png")
    assert read_image(tmp_path / "thermal.png").mean() == pytest.approx(values.mean() / 257, abs=1)


def tiff(values, bits, photometric, form=1):
    """A TIFF file of one strip, written by hand: grey values, packed already."""
    tags = [(256, 33), (257, 20), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 20),
            (279, len(values)), (339, form)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    entries = struct.pack("<H", len(tags)) + entries + b"\0" * 4
    return b"II*\0" + struct.pack("<I", 8 + len(values)) + values + entries


def test_tiff_of_12_bits_and_tiff_that_counts_from_white(tmp_path):
    path = tmp_path / "a.tif"
    values = np.resize(DEEP >> 4, (20, 34))[:, :33]
    padded = np.pad(values, ((0, 0), (0, 1))).astype(np.uint32)  # two values in three bytes, rows of whole bytes
    packed = (padded[:, ::2] << 12) | padded[:, 1::2]
    packed = np.stack([packed >> 16, packed >> 8, packed], axis=2).astype(np.uint8).reshape(20, -1)[:, :50]
    path.write_bytes(tiff(packed.tobytes(), 12, 1))
    assert np.array_equal(read_image(path), grey(values >> 4))
    path.write_bytes(tiff(DEEP.tobytes(), 16, 0))
    assert np.array_equal(read_image(path), grey((65535 - DEEP) >> 8))
    path.write_bytes(tiff(np.float32(DEEP / 65535).tobytes(), 32, 0, 3))
    assert np.array_equal(read_image(path), grey(np.rint((1 - np.float32(DEEP / 65535)) * 255)))


@pytest.mark.parametrize(
    "values", [[0, 1.01], [-0.01, 1], [0, 255], [np.nan, 0.5], [np.inf, 0]], ids=["over", "under", "255", "NaN", "inf"]
)
def test_floats_out_of_range_are_refused_with_what_to_do(values, tmp_path):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a.tif: .*floating-point numbers from .*scale them to \[0, 1\]"):
        read_image(tmp_path / "a.tif")


def test_whole_numbers_of_32_bits_are_refused_with_what_to_do(tmp_path):
    Image.fromarray(np.array([[0, 200]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a.tif: .*32 bits \(mode I\).*save it with 8 bits"):
        read_image(tmp_path / "a.tif")


# --- transparency ---


def test_colours_under_transparent_pixels_do_not_come_through(tmp_path):
    four("RGBA", COLOURS, ALPHA).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert (found[:, :5] == GROUND).all() and np.array_equal(found[:, 5:9], COLOURS[:, 5:9])
    four("RGBA", COLOURS, np.full_like(ALPHA, 255)).save(tmp_path / "opaque.png")
    assert np.array_equal(read_image(tmp_path / "opaque.png"), COLOURS)


def test_a_transparent_colour_counts_as_transparency(tmp_path):
    path = tmp_path / "a.png"
    key = COLOURS[3, 4]
    Image.fromarray(COLOURS).save(path, transparency=tuple(map(int, key)))
    assert np.array_equal(read_image(path), np.where((key == COLOURS).all(2, keepdims=True), GROUND, COLOURS))
    Image.fromarray(GREYS).save(path, transparency=int(GREYS[0, 0]))
    assert np.array_equal(read_image(path), grey(np.where(GREYS[0, 0] == GREYS, GROUND, GREYS)))
    deep().save(path, transparency=int(DEEP[2, 2]))
    assert np.array_equal(read_image(path), grey(np.where(DEEP[2, 2] == DEEP, GROUND, DEEP >> 8)))
    paletted().save(path, transparency=3)
    expected = np.where((GREYS % 8 == 3)[..., None], GROUND, COLOURS[0, :8][GREYS % 8])
    assert np.array_equal(read_image(path), expected)
    paletted().save(path, transparency=bytes([255, 0, 51, *[255] * 5]))
    alpha = np.array([255, 0, 51, *[255] * 5])[GREYS % 8]
    assert np.abs(read_image(path) - laid_upon_grey(COLOURS[0, :8][GREYS % 8], alpha)).max() <= 1


def png(bits, colour, rows, key):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 2, 1, bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"tRNS", key), chunk(b"IDAT", zlib.compress(b"\0" + rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_transparent_colour_of_other_depth_than_the_pixels_is_refused(tmp_path):
    path = tmp_path / "a.png"
    for content in (
        png(4, 0, b"\x5f", b"\0\x0f"),
        png(2, 0, b"\xd0", b"\0\x03"),
        png(16, 2, bytes(range(12)), bytes(range(6))),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="a.png: its transparent colour .*save it with alpha"):
            read_image(path)


# --- orientation ---

TURNED = {  # where the stored rows and columns go, by the EXIF standard
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "lzw.tif", "a.webp", "a.jpg"])
def test_pictures_are_turned_upright(name, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if name == "a.webp" else {"compression": "tiff_lzw"} if name == "lzw.tif" else {}
    Image.fromarray(COLOURS).save(tmp_path / name, exif=exif, **options)
    stored = COLOURS
    if name == "a.jpg":
        with Image.open(tmp_path / name) as image:
            stored = np.asarray(image)
    expected = TURNED[orientation](stored)
    assert np.array_equal(read_image(tmp_path / name), expected)
    assert read_image(tmp_path / name, (16, 8)).shape == (16, 8, 3)


@pytest.mark.parametrize("notes", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\0\0", b"Exif\0\0", b"Exif\0\0MM\0*\0\0"])
def test_spoilt_exif_leaves_the_pixels_as_they_are(notes, tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "plain.jpg")
    Image.fromarray(COLOURS).save(tmp_path / "spoilt.jpg", exif=notes)
    assert np.array_equal(read_image(tmp_path / "spoilt.jpg"), read_image(tmp_path / "plain.jpg"))


def test_of_several_frames_the_first_is_read(tmp_path):
    frames = [Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)]
    for name, options in (("a.tif", {}), ("a.png", {}), ("a.webp", {"lossless": True})):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(read_image(tmp_path / name), COLOURS)


# --- what is no image file ---


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n0 0 9 9 rectfill\nshowpage\n%%EOF\n"
OTHERS = ["EPS by hand", "EPS", "PDF", "GIF", "ICO", "TGA", "PCX", "SGI", "IM", "DDS", "MSP", "SPIDER", "DIB"]


@pytest.mark.parametrize("form", OTHERS)
def test_other_formats_are_refused_and_no_program_is_started(form, tmp_path, monkeypatch):
    def started(*arguments, **_):
        pytest.fail(f"asked for a program: {arguments}")

    path = tmp_path / "a.jpg"
    if form == "EPS by hand":
        path.write_bytes(POSTSCRIPT)
    else:
        image, content = Image.fromarray(COLOURS), io.BytesIO()
        image.convert({"MSP": "1", "SPIDER": "F"}.get(form, "RGB")).save(content, form)
        path.write_bytes(content.getvalue())
    for module, name in ((subprocess, "Popen"), (shutil, "which"), (os, "system")):
        monkeypatch.setattr(module, name, started)
    with pytest.raises(ValueError, match=f"cannot read the image .*a.jpg: .*{', '.join(FORMATS)}.*Restore the file"):
        read_image(path)


SPECIAL = {
    "pipe.png": "it is a pipe",
    "socket.png": "it is a socket",
    "device.png": "it is a device",
    "folder.png": "Is a directory",
    "nowhere.png": "No such file",
    "gone.png": "No such file",
    "to_pipe.png": "it is a pipe",
}


@pytest.fixture
def special(tmp_path, monkeypatch):
    """A folder of what looks like images by name and is none, and one that is: b.png."""
    folder = tmp_path / "special"
    folder.mkdir()
    monkeypatch.chdir(folder)  # the name of a socket must be short
    os.mkfifo("pipe.png")
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind("socket.png")
    Path("device.png").symlink_to("/dev/zero")
    Path("folder.png").mkdir()
    Path("nowhere.png").symlink_to("no such file")
    Path("to_pipe.png").symlink_to("pipe.png")
    Image.fromarray(COLOURS).save("b.png")
    return folder


@pytest.mark.parametrize("name", SPECIAL)
def test_what_is_no_regular_file_is_named_and_never_waited_for(name, special):
    with at_most(5), pytest.raises(ValueError, match=f"cannot read the image .*{name}: .*{SPECIAL[name]}.*Restore"):
        read_image(special / name)


def test_what_is_no_regular_file_is_left_out_when_asked(tmp_path, special):
    split = ReidDataset.load(write_set(tmp_path / "set", {"train": [(1, 1), (1, 2), (2, 1), (2, 2)]})).split("train")
    os.remove(split.files[0])
    os.mkfifo(split.files[0])
    os.remove(split.files[1])
    split.files[1].symlink_to("nowhere")
    reports = []
    with at_most(20, split.files[0]):
        kept = readable(split, report=reports.append)
    assert kept.files == split.files[2:] and len(reports) == 2
    with at_most(20, split.files[0]), pytest.raises(ValueError, match=f"cannot .*{split.files[0].name}: it is a pipe"):
        load_images(split, (40, 24))


def test_preparing_a_set_takes_no_pipe_and_no_postscript_for_an_image(special, monkeypatch):
    from data_prep.real import readable as begins_well

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("starts a program"))
    (special / "c.jpg").write_bytes(POSTSCRIPT)
    with at_most(5):
        assert [begins_well(special / name) for name in ("b.png", "c.jpg", *SPECIAL)] == [True] + [False] * 8


def test_too_many_pixels_stay_refused(tmp_path, monkeypatch):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="cannot read the image .*a.png: .*decompression bomb"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("name, options", [("PNG", {}), ("TIFF", {"compression": "group4"})])
def test_a_small_file_that_claims_many_pixels_is_refused_before_they_are_made(name, options, tmp_path, monkeypatch):
    """36 million are fewer than Pillow itself refuses."""
    Image.new("1", (6_000, 6_000)).save(tmp_path / "a.jpg", name, **options)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="a.jpg: it claims 6,000 x 6,000 pixels, and more than 33,554,432 are not"):
        read_image(tmp_path / "a.jpg")


def test_one_place_opens_image_files():
    """`Image.open` under any of its names, and other packages' readers of images, in all sources but the tests."""
    root, found = Path(__file__).parents[1], []
    for path in sorted(inner for top in ("paul", "data_prep", "book") for inner in (root / top).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                name = ast.unparse(node)
                opens = name.endswith("Image.open") or name.rpartition(".")[2] in ("imread", "imopen", "decode_image")
            else:
                opens = isinstance(node, ast.ImportFrom) and (
                    (node.module == "PIL.Image" and any(alias.name in ("open", "*") for alias in node.names))
                    or (node.module == "PIL" and any(alias.name == "Image" and alias.asname for alias in node.names))
                )
            if opens:
                found.append(path.relative_to(root).as_posix())
    # the book's own pictures, of PNG alone, are bytes of a notebook and no file
    assert found == ["book/alone.py", "paul/data/images.py"]


# --- damage ---


def break_files(split):
    """A JPEG cut in half, a page in place of an image, and a missing file; the last one is left whole."""
    cut, page, missing, _ = split.files
    Image.fromarray(picture(1, 1, np.random.default_rng(0), (200, 100))).save(cut, "JPEG")
    cut.write_bytes(cut.read_bytes()[:2000])
    page.write_text("<html>")
    missing.unlink()
    return cut, page, missing


def test_an_unreadable_image_is_named(split):
    for path in break_files(split):
        with pytest.raises(ValueError, match=f"cannot read the image .*{path.name}.*skip_unreadable=True"):
            read_image(path, (40, 24))
    with pytest.raises(ValueError, match=f"cannot read the image .*{split.files[0].name}"):
        load_images(split, (40, 24))


def test_unreadable_images_are_left_out_and_reported_when_asked(split):
    broken, reports = break_files(split), []
    kept = readable(split, report=reports.append)
    assert kept.files == split.files[3:] and kept.person_ids.tolist() == [2]
    assert len(reports) == 3
    assert all(
        report.startswith("left out: cannot read") and path.name in report
        for path, report in zip(broken, sorted(reports))
    )
    assert load_images(kept, (40, 24)).shape == (1, 3, 40, 24)


def test_values_are_what_imagenet_networks_expect():
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    x = unit_range(images)
    assert x.flatten().tolist() == pytest.approx([0, 128 / 255, 1])
    expected = [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert normalize(x).flatten().tolist() == pytest.approx(expected)


def test_a_sets_aspects_are_its_files_however_it_is_kept(tmp_path):
    """Rows over columns the right way up, of files before they were resized; a plain tensor's own without files."""
    sizes = [(20, 10), (30, 10), (12, 24)]
    for place, (rows, columns) in enumerate(sizes):
        Image.new("RGB", (columns, rows)).save(tmp_path / f"{place}.png")
    lying = Image.Exif()
    lying[0x0112] = 6
    Image.new("RGB", (24, 12)).save(tmp_path / "3.png", exif=lying)
    (tmp_path / "index.csv").write_text(
        "file,split,person_id,camera_id\n" + "".join(f"{place}.png,train,1,1\n" for place in range(4))
    )
    found = ReidDataset.load(tmp_path).split("train")
    for place in ("memory", "disk"):
        pixels = load_pixels(found, (16, 8), place=place, folder=tmp_path / "maps")
        for kept in (pixels, on_device(pixels, torch.device("cpu"))):
            torch.testing.assert_close(kept.aspects(), torch.tensor([2.0, 3.0, 0.5, 2.0]))
    assert Pixels.of(torch.zeros(2, 3, 16, 8, dtype=torch.uint8)).aspects().tolist() == [2.0, 2.0]
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="cannot read the image .*1.png"):
        pixels.aspects()

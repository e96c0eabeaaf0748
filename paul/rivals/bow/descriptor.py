"""Bag of words (BoW): which colour words stand in which horizontal strip of an image.

After Zheng, Shen, Tian, Wang, Wang & Tian, "Scalable person re-identification: a benchmark", ICCV 2015, Sec. 4: colour
names of 4x4 patches, a codebook by k-means, each patch given to its ten nearest words, a histogram of words per strip,
a Gaussian that plays down the background, and term weights as in text retrieval. No label is used; the codebook, the
term weights and the mean come from the target's unlabelled training images.

What differs from the paper, because what it used is not at hand:
- Colour names. The paper looks up p(name | colour) in a table learned from web images (van de Weijer et al., "Learning
  color names for real-world applications", TIP 2009). Here the table is made from eleven points, one for each basic
  colour term of English (Berlin & Kay, 1969): where 222,500 people of R. Munroe's colour survey (2010, published as
  CC0) put the name. p(name | colour) is a Gaussian of the distance in CIELAB, shared out over the eleven names.
- The codebook is trained on the target's own training images. The paper trained it on another set.

What is read out of the authors' code where the paper is short: the weight of a word falls with its distance d as
exp(-d / sigma^2); a word that fills the image is divided by the root of its count (bursts); the mean histogram is
subtracted (negative evidence), so that a word absent from both images counts in favour of a match; the inverse document
frequency enters as its root in either image. Here that is the plain log(N / n).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from paul.rivals.bow import BowOptions
from paul.rivals.kmeans import kmeans

# the eleven basic terms as the survey's people placed them, sRGB
COLOUR_NAMES = {
    "black": (0, 0, 0),
    "blue": (3, 67, 223),
    "brown": (101, 55, 0),
    "grey": (146, 149, 145),
    "green": (21, 176, 26),
    "orange": (249, 115, 6),
    "pink": (255, 129, 192),
    "purple": (126, 30, 156),
    "red": (229, 0, 0),
    "white": (255, 255, 255),
    "yellow": (255, 255, 20),
}
LEVELS = 32  # of each channel in the table of colour names, as in the one it stands in for


def cielab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] [..., 3] -> CIELAB under daylight (D65) [..., 3]."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = rgb.new_tensor(
        [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    )
    t = linear @ to_xyz.T / rgb.new_tensor([0.95047, 1.0, 1.08883])
    root = torch.where(t > 0.008856, t.clamp(min=1e-9) ** (1 / 3), 7.787 * t + 16 / 116)
    x, y, z = root.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


@lru_cache(maxsize=4)
def name_table(width: float) -> Tensor:
    """p(name | colour) of LEVELS^3 colours, red slowest: [32768, 11], rows sum to 1."""
    middle = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    colours = cielab(torch.cartesian_prod(middle, middle, middle))
    focal = cielab(torch.tensor(list(COLOUR_NAMES.values()), dtype=torch.float64) / 255)
    return torch.softmax(-torch.cdist(colours, focal).square() / (2 * width**2), 1).float()


def patch_names(images: Tensor, options: BowOptions) -> Tensor:
    """Mean colour-name distribution of every patch: uint8 [B, 3, H, W] -> [B, H // patch, W // patch, 11]."""
    level = images.long() * LEVELS // 256
    names = name_table(options.name_width).to(images.device)[
        (level[:, 0] * LEVELS + level[:, 1]) * LEVELS + level[:, 2]
    ]
    return F.avg_pool2d(names.permute(0, 3, 1, 2), options.patch).permute(0, 2, 3, 1)


class Codebook:
    """Words, and the term weights that go with them; made by `fit`.

    Attributes:
        words: [K, 11].
        mean, weight: of a histogram's entries [strips * K]: subtracted, then multiplied with.
    """

    def __init__(self, words: Tensor, options: BowOptions):
        self.words, self.options = words, options
        length = options.strips * len(words)
        self.mean, self.weight = torch.zeros(length), torch.ones(length)

    @classmethod
    def fit(cls, images: Tensor, options: BowOptions = BowOptions(), seed: int = 0) -> Codebook:
        """Learn words, mean and weights from unlabelled uint8 images [n, 3, H, W].

        Args:
            images: of any size that holds a patch per strip.
            options: see there.
            seed: of k-means, the only chance in BoW.

        Raises:
            ValueError: fewer patches than words, or more strips than rows of patches.
            ImportError: scikit-learn is not installed.
        """
        images = images.cpu()  # k-means works there
        patches = torch.cat([patch_names(part, options).flatten(0, 2) for part in images.split(256)])
        if len(patches) < options.words:
            raise ValueError(
                f"{len(patches)} patches of {len(images)} images make no {options.words} words: give more "
                "images or lower bow.words"
            )
        generator = torch.Generator().manual_seed(seed)
        sample = patches[torch.randperm(len(patches), generator=generator)[: 100 * options.words]]
        book = cls(kmeans(sample, options.words, seed, max_iter=50)[0], options)
        rows = patch_names(images[:1], options).shape[1]
        if rows < options.strips:
            raise ValueError(
                f"images of {images.shape[2]} rows have {rows} rows of patches, too few for "
                f"{options.strips} strips; lower bow.strips"
            )
        total, present = torch.zeros_like(book.mean), torch.zeros_like(book.mean)
        for part in tqdm(images.split(64), desc="bag of words", unit="batch", leave=False):
            histograms = book.histograms(part)
            total += histograms.sum(0)
            present += (histograms > 0).sum(0)
        book.mean = total / len(images)
        book.weight = (len(images) / present.clamp(min=1)).log().sqrt()
        return book

    def votes(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Each patch's words and their weights, nearest first: [B, rows, columns, assigned] twice."""
        names = patch_names(images, self.options)
        distance = torch.cdist(names.flatten(1, 2), self.words.to(names).expand(len(names), -1, -1))
        near, word = distance.topk(min(self.options.assigned, len(self.words)), dim=2, largest=False)
        rows, columns = names.shape[1:3]
        down, right = (torch.linspace(-1, 1, count, device=names.device) for count in (rows, columns))
        mask = torch.exp(-(down[:, None].square() + right.square()) / self.options.mask**2)
        weight = torch.exp(-near / self.options.sigma**2).unflatten(1, (rows, columns)) * mask[..., None]
        return word.unflatten(1, (rows, columns)), weight

    def histograms(self, images: Tensor) -> Tensor:
        """Votes per strip and word, bursts damped: uint8 [B, 3, H, W] -> [B, strips * K]."""
        word, weight = self.votes(images)
        strips, count = self.options.strips, len(self.words)
        strip = torch.arange(word.shape[1], device=word.device) * strips // word.shape[1]
        place = (strip[:, None, None] * count + word).flatten(1)
        found = weight.new_zeros(len(word), strips * count).scatter_add_(1, place, weight.flatten(1))
        often = weight.new_zeros(len(word), count).scatter_add_(1, word.flatten(1), torch.ones_like(weight.flatten(1)))
        return found / often.clamp(min=1).sqrt().repeat(1, strips)

    @torch.inference_mode()
    def describe(self, images: Tensor, batch: int = 64) -> Tensor:
        """Descriptors of uint8 images [n, 3, H, W] -> [n, strips * K] of unit length on their device; 5,600 wide."""
        mean, weight = self.mean.to(images.device), self.weight.to(images.device)
        return torch.cat([F.normalize((self.histograms(part) - mean) * weight, dim=1) for part in images.split(batch)])

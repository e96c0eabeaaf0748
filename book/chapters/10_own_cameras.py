# %% [markdown] tags=["slide"]
# # Adapt it to your own cameras
#
# **What you will learn**
#
# - how a folder of unlabelled pictures of people becomes a set, and a source network one for these cameras;
# - what can be seen of an adaptation *without* labels, and how far such signs go with the truth;
# - how images of any kind are described, searched, shown and exported.
#
# The chapters before had query, gallery and labels. Who comes with cameras of their own has none of these, and can't
# compute a score. This chapter plays that part: it hides the rendered people's labels, and looks only at the end.
#
# **Before anything else: may you?** The people in front of your cameras didn't ask to be found again. Have the right to
# use these images, for this purpose, before you copy the first one. Chapter 01 has more, and nothing below answers it.

# %% tags=["parameters"]
profile: str = "mini"
data_dir: str = "data"
results_dir: str = "results"
models_dir: str = "build/models"
target: str = "market"
seed: int = 0
people: int = 100
gallery_size: int = 100_000

# %%
import copy
import shutil
import tempfile
from pathlib import Path
from time import perf_counter
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import pandas as pd
import torch
from book.start import start
from data_prep.real import plan_folder, prepare
from IPython.display import Markdown, display
from paul import Extractor
from paul.adapt import adapt
from paul.data.datasets import ReidDataset
from paul.data.images import read_image
from paul.data.passes import extract, refresh_statistics
from paul.data.pixels import load_images
from paul.engine.device import pick_device
from paul.engine.run import Run
from paul.experiments.profiles import PROFILES
from paul.experiments.runner import source_model
from paul.experiments.specs import Places, Spec
from paul.patchnet import PatchNet
from paul.plots import STYLE
from paul.report.frames import target_name
from paul.retrieval import export
from paul.retrieval.agreement import bank_drift, neighbours, patch_agreement, purity
from paul.retrieval.embeddings import embed, listed
from paul.retrieval.features import read_embeddings
from paul.retrieval.ranked_lists import picture, rank
from paul.search import Index
from PIL import Image
from scipy import stats

start(data_dir, profile)
plt.rcParams.update(STYLE)
chosen = PROFILES[profile]
work, rng = Path(tempfile.mkdtemp(prefix="own-")), np.random.default_rng(seed)

# %% [markdown]
# ## A folder of crops
#
# What a detector leaves behind: a folder per camera, files with numbers for names. Ours are made of the people of a
# target, training and test people alike. `envelope` keeps who is who; nothing reads it until it is opened. The folder
# is prepared by the function behind this command, which checks each image and writes an index:
#
#     python -m data_prep folder --raw crops --name mine --pattern 'camera(?P<camera_id>\d+)/'
#
# The pattern reads the camera off the folder's name; without it cameras are unknown, and two of the signs are lost.

# %%
folder, envelope = Path(data_dir) / chosen.folders[target], {}
known = ReidDataset.load(folder).frame.query(
    "person_id > 0 and split in ['train', 'query', 'gallery']")
some = rng.permutation(known["person_id"].unique())[:people]
known = known[known["person_id"].isin(some)].sample(frac=1, random_state=seed)
for number, row in enumerate(known.itertuples()):
    name = f"camera{row.camera_id}/{number:05d}.jpg"
    (work / "crops" / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / row.file, work / "crops" / name)
    envelope[name] = row.person_id

prepare(plan_folder(name="mine", pattern=r"camera(?P<camera_id>\d+)/"),
        work / "crops", work / "data", progress=False)
mine = ReidDataset.load(work / "data/mine").split("train")
assert (mine.person_ids == -1).all()  # nobody is known
images, cameras = load_images(mine, chosen.image_size), mine.camera_ids
N = len(images)
print(f"{N} crops of {target_name(target, profile)}, {len(set(cameras))} cameras")

# %% [markdown]
# ## Adapt
#
# `paul adapt --data data/mine --init CHECKPOINT` writes to `models/mine`, and goes on where it was stopped. Its
# `CHECKPOINT` is a source network, trained by `paul pretrain` on a labelled set. Here the same call is made from
# Python. To watch the memory bank, this cell keeps bank and weights whenever an epoch is saved.

# %%
source, _ = source_model(Spec("paul", target, seed, profile),
                         Places(data_dir, models=models_dir))
source.eval()
banks, weights = [], []


def save_and_keep(run, save=Run.save):
    if len(run.history) > len(weights):  # an epoch is whole
        banks.append(run.parts["memory"].bank.detach().cpu().clone())
        weights.append(copy.deepcopy(run.parts["model"].state_dict()))
    save(run)


with mock.patch.object(Run, "save", save_and_keep):
    model, history = adapt(source, images, chosen.adapt,
                           folder=work / "models/mine", seed=seed)
model.eval()
print(f"{len(history)} epochs, {sum(line['seconds'] for line in history):.0f} s")

# %% [markdown] tags=["slide"]
# ## What can be seen without labels
#
# A falling loss says that the network does what the loss asks, not that two images of one person met. *Purity across
# cameras* would say so: of an image's $k$ nearest in other cameras, the share that show its person. It takes labels.
# Four signs don't.
#
# ### Sign 1: how far the bank drifts
#
# Entry $w_j^m$ is the moving average of patch $m$ of image $j$ (chapter 04). If training settles, entries come to rest:
#
# $$\text{drift}_t = \frac{1}{MN} \sum_{m,j} \big(1 - \cos(w_{j,t-1}^m,\; w_{j,t}^m)\big) .$$

# %%
before, after = banks[0][:, :40], banks[1][:, :40]
by_hand = [1 - (a @ b) / (a.norm() * b.norm())
           for a, b in zip(before.flatten(0, 1), after.flatten(0, 1))]
torch.testing.assert_close(sum(by_hand).item() / len(by_hand),
                           bank_drift(before, after), rtol=1e-4, atol=1e-6)
drift = [bank_drift(*pair) for pair in zip(banks, banks[1:])]
print("drift, epoch by epoch:", ", ".join(f"{value:.3f}" for value in drift))

# %% [markdown] tags=["slide"]
# A visit moves an entry by a tenth of the way only (the rate $l$). So a small drift shows a slow average first, and a
# network at rest second. What it warns of is a training that runs away.
#
# ### Sign 2: whether patches agree
#
# The six patches of an image look at different parts of one person. If head and legs independently point to the same
# other images, these images likely show that person. With $\mathcal N_m(i)$ the $k$ nearest images by patch $m$ alone,
#
# $$\text{agreement}(i) = \frac{2}{M(M-1)} \sum_{m<m'} \frac{|\mathcal N_m(i) \cap \mathcal N_{m'}(i)|}{k} .$$
#
# Patches that point at random share $k/(N-1)$. Neighbours are taken from *other cameras* only: two frames of one
# passage are alike for any network, and would flatter it.

# %%
k, M = 5, source.options.num_patches


def agreement_by_hand(features, i):
    sets = []
    for patch in features.chunk(M, dim=1):
        similarity = (patch @ patch[i]).double()  # cosines of unit vectors
        similarity[torch.tensor(cameras == cameras[i])] = -2  # itself, too
        sets.append(set(similarity.argsort(descending=True)[:k].tolist()))
    return np.mean([len(sets[m] & sets[other]) / k
                    for m in range(M) for other in range(m)])


features = extract(source, images).float().cpu()
np.testing.assert_allclose([agreement_by_hand(features, i) for i in range(10)],
                           patch_agreement(features, M, k, cameras)[:10], atol=1e-6)

# %% [markdown]
# ### Sign 3: which cameras find each other
#
# Were cameras no hindrance, an image's nearest ones would come from its own camera only as often as its camera has
# images. How much more often they do says how much of the *camera* is in the descriptor. Frames of one passage add to
# it for a good reason, they show the same person: so watch its change more than its value.
#
# ### All of them, for all networks at hand
#
# The source network as it is; with the statistics of our cameras (AdaBN, chapter 06); after each epoch; and adapted, at
# the very end. Beside them a network that never learned anything: a sign that likes that one is worth little.

# %% tags=["slide"]
def own_camera(features):
    """Share of neighbours from the own camera, over its share of all images."""
    same = cameras[neighbours(features, k)] == cameras[:, None]
    expected = np.mean([((cameras == own).sum() - 1) / (N - 1) for own in cameras])
    return same.mean() / expected


torch.manual_seed(seed)
networks = {"untrained": PatchNet(source.options).to(pick_device()),
            "source": source, "AdaBN": copy.deepcopy(source)}
for name in ("untrained", "AdaBN"):
    refresh_statistics(networks[name], images)
for number, state in enumerate(weights, 1):
    networks[f"epoch {number}"] = copy.deepcopy(model)
    networks[f"epoch {number}"].load_state_dict(state)
described = {name: extract(network, images).float().cpu()
             for name, network in [*networks.items(), ("adapted", model)]}
agreed = {name: patch_agreement(f, M, k, cameras).numpy()
          for name, f in described.items()}
signs = pd.DataFrame({"agreement": {name: a.mean() for name, a in agreed.items()},
                      "own camera": {name: own_camera(f)
                                     for name, f in described.items()}})
signs.style.format("{:.2f}").set_caption(
    f"one run; patches that point at random agree by {k / (N - 1):.2f}")

# %% [markdown]
# ### Sign 4: a contact sheet
#
# The oldest and the best of all signs: look. Queries drawn at random, never picked, each with its most similar images
# from other cameras; images of unknown camera are left out and counted, since theirs may be the query's. As a page that
# needs no network and holds its pictures inside:
#
#     paul rank --query data/mine --gallery data/mine --init models/mine/model.pt -o page.html --other-cameras
#
# Before you look: how would you see that a network has learned the camera, and not the clothes?

# %% tags=["slide"]
#| caption: Images, each before those nearest to it that other cameras took.
frame, drawn = listed([work / "data/mine"]), rng.choice(N, 6, replace=False)
queries = frame.iloc[drawn].reset_index(drop=True)
picture(rank(described["adapted"][drawn], queries, described["adapted"], frame, 8,
             other_cameras=True))

# %% [markdown]
# ## The envelope
#
# Now the labels, which a reader with real cameras doesn't have. Does agreement go with the truth? Two questions, and
# they needn't have one answer: *across networks* (which of two would I take?), and *across images* of one network
# (which of its answers would I believe?).

# %% tags=["slide"]
#| caption: Purity across cameras, which needs labels, against the agreement of
#|   patches, which doesn't: a trained network each.
person_ids = np.array([envelope[name] for name in mine.frame["file"]])
pure = {name: purity(neighbours(f, k, cameras), person_ids).numpy()
        for name, f in described.items()}
signs["purity across cameras"] = {name: p.mean() for name, p in pure.items()}
trained = signs.drop(index="untrained")
figure, axis = plt.subplots(figsize=(7, 3))
for (name, row), marker in zip(trained.iterrows(), "sDooooooooo"):
    axis.plot(*row.iloc[::2], marker if name != "adapted" else "^", label=name)
axis.set(xlabel="agreement of patches (no labels)", ylabel="purity across cameras")
figure.legend(loc="outside right upper")
plt.show()
display(signs.style.format("{:.2f}"))
across = stats.spearmanr(trained["agreement"], trained["purity across cameras"])[0]
lines = [f"Across {len(trained)} trained networks: rank correlation {across:.2f}."]
for name in ("source", "adapted"):
    by_agreement = pure[name][np.argsort(agreed[name], kind="stable")]
    thirds = [third.mean() for third in np.array_split(by_agreement, 3)]
    lines.append("Across images, {}: {:.2f}; purity across cameras of the third "
                 "that agrees least {:.2f}, then {:.2f}, then {:.2f}.".format(
                     name, stats.spearmanr(agreed[name], pure[name])[0], *thirds))
display(Markdown("\n".join(f"- {line}" for line in lines)))

# %% [markdown]
# The first is weak evidence, however high: epochs lie on one path, and all that moves along a path moves together. The
# second is of use where the thirds differ: then agreement sorts answers by how far to believe them.
#
# How sure is such a number? Images of one person are no independent witnesses: a red coat is found again in each. So
# take each *person's* mean first, then the mean over people and its interval (chapter 07), $t$ for as many people:

# %% tags=["implement", "slide"]
def interval_over_people(values, people, t):
    """(low, high) of the mean over people: values [N] and people [N], one of each
    an image; t, the quantile for the number of people."""
    everybody = np.unique(people)
    means = np.array([values[people == person].mean() for person in everybody])
    half = t * means.std(ddof=1) / len(means) ** 0.5
    return means.mean() - half, means.mean() + half


# %%
quantile = stats.t.ppf(0.975, len(set(person_ids)) - 1)
for name in ("source", "AdaBN", "adapted"):
    low, high = interval_over_people(pure[name], person_ids, quantile)
    half = 1.96 * pure[name].std(ddof=1) / N**0.5
    print(f"{name}: {low:.3f} to {high:.3f} over people, {high - low:.3f} wide; "
          f"{2 * half:.3f} as if images were independent")

# %% [markdown]
# ## Describing images: `paul.Extractor`
#
# One call for paths, arrays, PIL images and tensors, one or many, of any size: the same pixels give the same
# descriptor. For many images, `paul embed IMAGES... -o features.parquet` writes a row per image, and goes on where it
# was stopped; `paul rank --gallery features.parquet` takes the file in place of the images.

# %%
describe = Extractor(model)  # or Extractor("models/mine/model.pt")
pixels = read_image(frame["file"][0])
tensor = torch.tensor(pixels).permute(2, 0, 1)
kinds = (frame["file"][0], pixels, Image.fromarray(pixels), tensor, tensor / 255)
assert len({describe(item).numpy().tobytes() for item in kinds}) == 1

embed(describe, frame, work / "features.parquet")
kept = read_embeddings(work / "features.parquet")
np.testing.assert_allclose(kept.vectors, described["adapted"], atol=1e-3)
assert kept.model == describe.fingerprint  # another network's would be refused

# %% [markdown]
# ## A large gallery
#
# Exact search compares a query with all images, block by block; the gallery may lie on disk. FAISS's flat index does
# the same on a copy. Its inverted lists (`ivf`) cluster the gallery, and a query looks into a few clusters: that takes
# time to build, pays when many queries follow, and may miss some, so `recall` measures how many it finds. `Index` takes
# them above a million images, unless told otherwise. Here, copies of our descriptors with noise added:

# %% tags=["slide"]
torch.manual_seed(seed)
gallery = described["adapted"][torch.randint(N, (min(gallery_size, 100 * N),))]
gallery += 0.1 * torch.randn(gallery.shape)
asked, lines, found = described["adapted"][:200], {}, {}
for method in ("exact", "flat", "ivf"):
    begin = perf_counter()
    index = Index(gallery, method)
    built = perf_counter()
    found[method] = index.search(asked, 10).similarity
    lines[method] = {"build, s": built - begin,
                     f"search of {len(asked)}, s": perf_counter() - built,
                     "recall": index.recall(asked, 10)}
torch.testing.assert_close(found["flat"], found["exact"], rtol=0, atol=1e-5)
pd.DataFrame(lines).T.style.format("{:.2f}").set_caption(
    f"{len(gallery):,} descriptors, {torch.get_num_threads()} threads")

# %% [markdown]
# ## Giving the network away
#
# `paul export models/mine/model.pt -o mine.safetensors` writes weights that hold no code, with a card, `mine.md`; `-o
# mine.onnx` writes a network that runs without PyTorch and takes uint8 images, so that nobody can normalise them
# wrongly. Both must give what we have:

# %%
few, expected = images[:16], extract(model.cpu(), images[:16])
export.save_safetensors(model, work / "mine.safetensors")
again, _ = export.load_safetensors(work / "mine.safetensors")
assert torch.equal(extract(again, few), expected)
export.save_onnx(model, work / "mine.onnx")
session = onnxruntime.InferenceSession(work / "mine.onnx",
                                       providers=["CPUExecutionProvider"])
(elsewhere,) = session.run(None, {"images": few.numpy()})
np.testing.assert_allclose(elsewhere, expected, rtol=0, atol=1e-4)
card = export.model_card(model, "mine", trained_on="Rendered, unlabelled people.")
Markdown("##" + card.replace("\n## ", "\n#### "))

# %% [markdown] tags=["slide"]
# ## Before you trust it
#
# - Look at a contact sheet from other cameras, drawn at random, and count the wrong ones in a hundred by hand.
# - Compare with the source network and with AdaBN alone. If the signs don't move, adaptation had nothing to give.
# - Sort answers by the agreement of their patches, and begin to doubt at the lower end.
# - Label a few dozen people after all. Nothing above replaces it, and chapter 02 says what to compute.
# - Check again when a camera is moved, a lamp is changed, or winter coats come out.
#
# ## Summary
#
# - A folder of crops is enough: `data_prep folder`, `paul adapt`, `paul rank`.
# - Drift, agreement, own-camera share and contact sheets need no labels. What they are worth on your people is unknown.
# - Descriptors live in a file, search is exact by default, and a model leaves with a card.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* What does agreement become when all patches are one and the same? Why is high agreement alone no merit?
# 2. *Break it.* Drop the restriction to other cameras. Which rises, and what would a reader without labels believe?
# 3. A descriptor is $M$ unit vectors side by side. Show that its cosine is the mean of the patches' cosines.
# 4. *Extend.* A fifth sign without labels: mirror all images and ask how many of an image's neighbours stay. Compute it
#    for each image, and measure whether it goes with purity across cameras.
# 5. *Implement.* Write `interval_over_people`. When is it as wide as the interval that takes images for independent?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# It becomes 1, and says nothing about people. Patches that overlap much, or that all see the background, come close. So
# compare agreement only between networks whose patches see equally different things: best, states of one network.
#
# ```python
# # runs alone
# import torch
# from paul.retrieval.agreement import patch_agreement
#
# assert (patch_agreement(torch.randn(40, 8).repeat(1, 6), 6, 5) == 1).all()
# ```
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# Leave out `cameras` in `patch_agreement(f, M, k)` and `neighbours(f, k)`. Both rise, since frames of one passage are
# easy for any network, even for one that knows only the street. Without labels a reader sees the higher agreement
# alone, and believes in a better network than there is. Which rises more depends on how many frames a passage has, and
# how much of the camera each patch sees.
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# The norm of $M$ unit vectors side by side is $\sqrt M$, for either image. So the cosine is $\frac{1}{\sqrt M \sqrt M}
# \sum_m \langle a^m, b^m \rangle$, and each product is the cosine of one patch: their mean.
#
# </details>
#
# <details><summary>Solution 4</summary>
#
# The sign is the share of the $k$ nearest that stays. It asks whether an answer hangs on the side a bag is worn on. A
# network trained on mirrored images keeps nearly all of its neighbours, right or wrong, and then the sign can't tell:
# it is only as good as the disturbance is new to the network. Take a crop or a tint as well.
#
# ```python
# mirrored = extract(model, images.flip(3)).float().cpu()
# plain, flipped = (neighbours(f, k, cameras)
#                   for f in (described["adapted"], mirrored))
# stay = (plain[:, :, None] == flipped[:, None]).any(2).float().mean(1)
# print(stay.mean(), stats.spearmanr(stay, pure["adapted"])[0])
# ```
#
# - *full*: the sign for each image, its correlation with purity, and a second disturbance that training hasn't used;
# - *half*: the sign and its correlation;
# - *some*: the mean of the sign, for one network.
#
# </details>
#
# <details><summary>Solution 5</summary>
#
# When images of one person say nothing about each other: a person's mean over $n$ of them has the variance $\sigma^2 /
# n$, and the two agree but for $t$ against 1.96. When they all say the same, the honest interval is $\sqrt n$ times as
# wide. Often forgotten: nobody counts more for having more images, and `ddof=1`.
#
# </details>

# %%
shutil.rmtree(work)

# %% [markdown]
# ## Next
#
# The pages beside the chapters: from a laptop to a cluster, and what happens when things break.

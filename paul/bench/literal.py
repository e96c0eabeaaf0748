"""Literal, slow versions of what `paul` computes: the equations read aloud, with loops over samples.

They are the other half of each test and the left column of the benchmarks. Nothing of it is shared with the rest of
`paul`; where a step of the paper is ambiguous, the reading is that of the ledger entry named beside it.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet

# --- PEDAL: the paper's L_c, ledger 1-4 ------------------------------------------------------------------------------


def pedal_loss(features, bank, index, s=30.0, k=10):
    """Per patch position: distances to the whole bank, the own entry struck out, a full sort, two sums of exp."""
    per_patch = []
    for x, w in zip(features, bank):
        squared = (x**2).sum(1, keepdim=True) + (w**2).sum(1) - 2 * x @ w.T
        not_own = (torch.arange(len(w)) != index.cpu()[:, None]).to(w.device)
        others = squared[not_own].view(len(x), -1).sort(dim=1).values
        pulled = (-s / 2 * others[:, :k]).exp().sum(1)
        everyone = (-s / 2 * others).exp().sum(1)
        per_patch.append((everyone.log() - pulled.log()).mean())
    return sum(per_patch) / len(per_patch)


class ListMemory:
    """The bank as a list of one [M, D] tensor per image, updated in turn, stacked anew to be read; ledger 3, 5, 6."""

    def __init__(self, num_images, num_patches, dim, rate=0.1):
        self.entries = [torch.zeros(num_patches, dim) for _ in range(num_images)]
        self.filled = [False] * num_images
        self.rate = rate

    def update(self, index, features):
        for b, i in enumerate(index.tolist()):
            x = features[:, b].detach().cpu().clone()
            self.entries[i] = (1 - self.rate) * self.entries[i] + self.rate * x if self.filled[i] else x
            self.filled[i] = True

    @property
    def bank(self):
        return torch.stack(self.entries, dim=1)


# --- IPFL: the paper's L_v, ledger 9-13 ------------------------------------------------------------------------------


class CenterList:
    """A moving average per training image of the mean of its views (real image and surrogate); ledger 11."""

    def __init__(self, num_images, rate=0.1):
        self.centers = [None] * num_images
        self.rate = rate

    def update(self, index, features):
        for i, views in zip(index.tolist(), features):
            old, mean = self.centers[i], views.detach().mean(0)
            self.centers[i] = mean if old is None else (1 - self.rate) * old + self.rate * mean
        return torch.stack([self.centers[i] for i in index.tolist()])


def distances(x, points):
    """Euclidean distances of a vector to each of some points; the gradient where they coincide is 0, ledger 13."""
    squared = ((x - points) ** 2).sum(1)
    same = squared == 0
    return squared.masked_fill(same, 1.0).sqrt().masked_fill(same, 0.0)


def cyclic_ranking(features, centers, owner, r=3, include_self=True, max_candidates=15):
    """For each anchor, walk down its list of other images' centres; ledger 12.

    Candidate j is the hard negative if the anchor's own image is not among the top r of j's list. That list ranks the
    batch's centres by distance to j's centre; include_self says whether j's own entry takes up one of the r places.
    """
    picks = []
    for x, own in zip(features, owner.tolist()):
        candidates = [j for j in distances(x, centers).argsort().tolist() if j != own]
        pick = -1
        for j in candidates[:max_candidates]:
            ranked = distances(centers[j], centers).argsort().tolist()
            if not include_self:
                ranked.remove(j)
            if own not in ranked[:r]:
                pick = j
                break
        picks.append(pick)
    return torch.tensor(picks)


def ipfl_loss(features, centers, owner, margin=2.0, r=3, include_self=True, max_candidates=15, no_negative="zero"):
    """Mean hinge over the anchors; without a negative its distance counts as 0, or the anchor is skipped."""
    centers = centers.detach()
    picks = cyclic_ranking(features.detach(), centers, owner, r, include_self, max_candidates)
    losses = []
    for x, own, j in zip(features, owner.tolist(), picks.tolist()):
        if j < 0 and no_negative == "skip":
            continue
        to_centers = distances(x, centers)
        to_negative = to_centers[j] if j >= 0 else 0.0
        losses.append((margin + to_centers[own] - to_negative).clamp(min=0))
    return torch.stack(losses).mean() if losses else (features * 0).sum()


# --- Source triplet, ledger 23 ---------------------------------------------------------------------------------------


def triplet_loss(features, labels, margin=1.0, positive="nearest"):
    """The nearest (or farthest) other image of the same person against the nearest of anyone else.

    An anchor without either, a person with one image say, contributes nothing.
    """
    losses = []
    for a, x in enumerate(features):
        to_all = distances(x, features)
        same = [to_all[b] for b in range(len(features)) if b != a and labels[b] == labels[a]]
        other = [to_all[b] for b in range(len(features)) if labels[b] != labels[a]]
        if same and other:
            near = min(same) if positive == "nearest" else max(same)
            losses.append((margin + near - min(other)).clamp(min=0))
    return torch.stack(losses).mean() if losses else (features * 0).sum()


# --- Cluster-Contrast (Dai et al. 2022), and the Jaccard distance that it clusters by (Zhong et al. 2017) -------------


def jaccard_distances(features, k1=30, k2=6):
    """Set by set, as Sec. 3 has it: mutual neighbours, their expansion where two thirds agree, Gaussian weights (with a
    sum of one, as released), the mean over k2 neighbours, minima over maxima."""
    n = len(features)
    squared = [[float(((x - y) ** 2).sum()) for y in features] for x in features]
    ranked = [sorted(range(n), key=lambda j: (j != i, squared[i][j])) for i in range(n)]

    def mutual(i, k):
        return {j for j in ranked[i][:k] if i in ranked[j][:k]}

    vectors = np.zeros((n, n))
    for i in range(n):
        own = mutual(i, k1)
        more = [mutual(j, max(1, k1 // 2)) for j in own]
        for j in own.union(*(theirs for theirs in more if 3 * len(own & theirs) >= 2 * len(theirs))):
            vectors[i, j] = np.exp(-squared[i][j])
        vectors[i] /= vectors[i].sum()
    vectors = [sum(vectors[j] for j in ranked[i][:k2]) / k2 for i in range(n)]
    return np.array([[1 - np.minimum(v, w).sum() / np.maximum(v, w).sum() for w in vectors] for v in vectors])


def cluster_nce(features, centroids, clusters, temperature=0.05):
    """Minus the logarithm of the own centroid's share of all sums of exp, an image at a time."""
    losses = []
    for x, own in zip(features, clusters.tolist()):
        scores = [(x @ centroid / temperature).exp() for centroid in centroids]
        losses.append(-(scores[own] / sum(scores)).log())
    return sum(losses) / len(losses)


def updated_centroids(centroids, features, clusters, momentum=0.1):
    """An image at a time: a share of the centroid, the rest the image, back to unit length."""
    centroids = [centroid.clone() for centroid in centroids]
    for x, own in zip(features, clusters.tolist()):
        mixed = momentum * centroids[own] + (1 - momentum) * x
        centroids[own] = mixed / (mixed**2).sum().sqrt()
    return torch.stack(centroids)


# --- Patches, ledger 20 ----------------------------------------------------------------------------------------------


def sample_patches(x, theta, size=None):
    """Cut patch m out of the map of each image by its affine grid, as large as the map itself: [M, B, C, h, w]."""
    h, w = size or x.shape[2:]
    patches = []
    for m in range(theta.shape[1]):
        grid = F.affine_grid(theta[:, m], (len(x), x.shape[1], h, w), align_corners=True)
        patches.append(F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True))
    return torch.stack(patches)


def pool_patches(x, theta, size=None):
    """The mean of each patch: [M, B, C]."""
    return sample_patches(x, theta, size).mean((3, 4))


# --- Retrieval scores, ledger 28-30 ----------------------------------------------------------------------------------


def evaluate_distances(distances, query_ids, gallery_ids, query_cams, gallery_cams, max_rank=50):
    """Sort the gallery for each query and walk down the list; at equal distance wrong images stand first."""
    distances, query_ids, gallery_ids, query_cams, gallery_cams = (
        np.asarray(a) for a in (distances, query_ids, gallery_ids, query_cams, gallery_cams)
    )
    per_query, left_out = [], 0
    for q in range(len(query_ids)):
        right = gallery_ids == query_ids[q]
        removed = (right & (gallery_cams == query_cams[q])) | (gallery_ids == -1)
        order = np.lexsort((right, distances[q]))
        matches = right[order][~removed[order]]
        if matches.any():
            per_query.append({"query": q, **scores_of_list(matches)})
        else:
            left_out += 1
    first = np.array([row["first_rank"] for row in per_query])
    return {
        "cmc": [float((first <= k).mean()) for k in range(1, max_rank + 1)] if per_query else None,
        "map_step": np.mean([row["ap_step"] for row in per_query]) if per_query else None,
        "map_trapezoid": np.mean([row["ap_trapezoid"] for row in per_query]) if per_query else None,
        "minp": np.mean([row["inp"] for row in per_query]) if per_query else None,
        "per_query": per_query,
        "left_out": left_out,
    }


def scores_of_list(matches):
    """Scores of one ranked list of True (right) and False, from scikit-learn's precision-recall curve, as released."""
    from sklearn.metrics import auc, precision_recall_curve

    ranks = np.arange(1, len(matches) + 1)
    # The nearer the higher the score; recall falls from 1 to 0 along the curve.
    precision, recall, _ = precision_recall_curve(matches, -ranks)
    right_ranks = ranks[matches]
    return {
        "first_rank": right_ranks[0],
        "ap_step": -(np.diff(recall) * precision[:-1]).sum(),
        "ap_trapezoid": auc(recall, precision),
        "inp": len(right_ranks) / right_ranks[-1],
        "positives": len(right_ranks),
    }


def squared_distances(query, gallery):
    """The whole matrix at once."""
    return (query**2).sum(1, keepdim=True) + (gallery**2).sum(1) - 2 * query @ gallery.T


# --- The target stage as released: one image, one patch, one list entry after the other; ledger 5-19 ------------------


def prepared(images):
    """uint8 [n, 3, H, W] -> what the backbone expects, an image at a time."""
    finish = transforms.Compose([transforms.ToPILImage(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    return torch.stack([finish(image) for image in images])


class ReleasedImages(Dataset):
    """Item i: (the image flipped or not, its surrogate, i), made by per-image transforms; ledger 16, 17.

    The surrogate is jittered, rotated, cropped to 70-95 % of its area, and flipped on its own.
    """

    def __init__(self, images):
        height, width = images.shape[2:]
        finish = [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        self.images = images
        self.plain = transforms.Compose([transforms.ToPILImage(), *finish])
        self.changed = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.ColorJitter(0.2, 0.2, 0.2, 0.1),
                transforms.RandomRotation(10),
                transforms.RandomResizedCrop((height, width), scale=(0.70, 0.95)),
                *finish,
            ]
        )

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.plain(self.images[i]), self.changed(self.images[i]), i


def branch_features(model, x):
    """Unit features [M, B, D]: cut each patch whole, average it, give it to its branch, norm it there; ledger 19."""
    feature_map = model.backbone(x)
    patches = sample_patches(feature_map, model.generator(feature_map))
    norm, features = model.branch_norm, []
    for m, patch in enumerate(patches):
        y = F.linear(patch.mean((2, 3)), model.branch.weight[m], model.branch.bias[m])
        own = slice(m * y.shape[1], (m + 1) * y.shape[1])
        y = F.batch_norm(
            y,
            norm.running_mean[own],
            norm.running_var[own],
            norm.weight[own],
            norm.bias[own],
            model.training,
            norm.momentum,
            norm.eps,
        )
        features.append(y / (y**2).sum(1, keepdim=True).sqrt())
    return torch.stack(features)


@torch.no_grad()
def describe(model, x):
    """Descriptors [B, M*D] of prepared images."""
    return torch.cat(list(branch_features(model, x)), dim=1)


class ReleasedStep:
    """One step on B images and their B surrogates, with lists for memories.

    The bank lives in a list on the host and is stacked and carried over for each step; the generator of the patches is
    held by a rate of 0, so its gradients are taken all the same; ledger 6, 18.
    """

    def __init__(self, model, num_images, s=30.0, k=10, rate=0.1, margin=2.0, lam=2.0, lr=1e-4):
        patches, dim = model.options.num_patches, model.options.dim
        self.model, self.s, self.k, self.margin, self.lam = model, s, k, margin, lam
        self.memory, self.centers = ListMemory(num_images, patches, dim, rate), CenterList(num_images, rate)
        for weight in model.generator.parameters():
            weight.requires_grad_(True)
        trained = [*model.backbone.parameters(), *model.branch.parameters(), *model.branch_norm.parameters()]
        self.optimizer = torch.optim.SGD(
            [{"params": trained}, {"params": model.generator.parameters(), "lr": 0.0}],
            lr=lr,
            momentum=0.9,
            weight_decay=1e-4,
        )

    def losses(self, real, surrogate, index):
        """L = L_v + lambda L_c, L_v, L_c of prepared images [B, 3, H, W] each."""
        features = branch_features(self.model, torch.cat([real, surrogate]))
        embeddings = [
            x @ (w / (w**2).sum(1, keepdim=True).sqrt()).T for x, w in zip(features, self.model.embedding.weight)
        ]
        images = torch.cat(embeddings, dim=1)
        centers = self.centers.update(index, torch.stack([images[: len(real)], images[len(real) :]], dim=1))
        owner = torch.arange(len(real)).repeat(2)
        loss_v = ipfl_loss(images, centers, owner, margin=self.margin)
        own = features[:, : len(real)]
        self.memory.update(index, own.cpu())
        loss_c = pedal_loss(own, self.memory.bank.to(own.device), index, s=self.s, k=self.k)
        return loss_v + self.lam * loss_c, loss_v, loss_c

    def __call__(self, real, surrogate, index):
        loss = self.losses(real, surrogate, index)[0]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

"""PAUL: patch-based discriminative feature learning for unsupervised person re-identification.

The training core behind the book: data, PatchNet, the two losses and their memories, the two training stages and the
evaluation (Yang, Yu, Wu and Zheng, CVPR 2019, pp. 3633-3642). Nothing here plots or reads a notebook on import.
"""

__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "Extractor":  # on demand: `import paul` alone does not wait for torch
        from paul.retrieval.extractor import Extractor

        return Extractor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

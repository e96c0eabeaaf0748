"""`paul embed`: descriptors of images, as one file."""

from __future__ import annotations

from paul.commands._shared import describing, extractor_of

HELP = "describe images by a trained network: one row per image"


def options(command) -> None:
    """Of the command line."""
    command.add_argument("images", nargs="+", help="files, folders (a prepared set among them) and patterns")
    describing(command)
    command.add_argument("-o", "--out", required=True, help="features.parquet or .npz; the same command goes on")
    command.add_argument("--split", help="of prepared sets only this split, such as gallery; all of them by default")
    command.add_argument("--skip-unreadable", action="store_true", help="leave out images that cannot be decoded")


def run(args) -> None:
    from paul.retrieval.embeddings import embed, listed

    extractor = extractor_of(args)
    count = embed(extractor, listed(args.images, args.split), args.out, args.skip_unreadable)
    print(f"{args.out}: {count} images, {extractor.width} numbers each")

"""`paul rank`: the gallery images most similar to queries, as a picture or a page."""

from __future__ import annotations

from pathlib import Path

from paul.commands._shared import describing, extractor_of

HELP = "show the gallery images most similar to queries, as a picture or a page"


def options(command) -> None:
    """Of the command line."""
    command.add_argument("--query", nargs="+", required=True, metavar="IMAGE", help="files, folders and patterns")
    command.add_argument(
        "--gallery",
        nargs="+",
        required=True,
        metavar="GALLERY",
        help="a prepared set such as data/mine, other folders, files or patterns, or a features file "
        "of 'paul embed' by the same checkpoint",
    )
    describing(command)
    command.add_argument("-o", "--out", required=True, help="ranked.png, or page.html for many queries")
    command.add_argument("-k", type=int, default=10, help="images per query")
    command.add_argument(
        "--splits",
        metavar="QUERY,GALLERY",
        help="of prepared sets, the images of which splits ask and are searched, such as val_query,val_gallery or "
        "train,train; by default query and gallery, and of a set that lacks them all images. Files, other folders "
        "and features files are taken whole",
    )
    command.add_argument(
        "--other-cameras",
        action="store_true",
        help="only images of cameras other than the query's; those whose camera is not known are left out",
    )
    command.add_argument(
        "--method", default="auto", help="of the search: exact, flat, ivf; auto is exact up to a million images"
    )


def run(args) -> None:
    from paul.retrieval.embeddings import listed
    from paul.retrieval.features import read_embeddings
    from paul.retrieval.ranked_lists import rank, write_ranking

    out = Path(args.out)
    if out.suffix not in (".png", ".html"):
        raise ValueError(f"--out {out}: end it in .png or .html")
    if args.k < 1:
        raise ValueError(f"-k {args.k}: ask for at least one image per query")
    splits = (args.splits or "query,gallery").split(",")
    if len(splits) != 2:
        raise ValueError(f"--splits {args.splits}: name two, such as query,gallery")
    strict = args.splits is not None
    extractor, queries = extractor_of(args), listed(args.query, splits[0], strict)
    if len(args.gallery) == 1 and Path(args.gallery[0]).suffix in (".parquet", ".npz"):
        kept = read_embeddings(args.gallery[0])
        if kept.model != extractor.fingerprint:
            raise ValueError(
                f"--gallery {args.gallery[0]} was described by another network or at another image size "
                f"than {args.init} is used with; 'paul embed' it again"
            )
        gallery, vectors = kept.frame, kept.vectors
    else:
        gallery = listed(args.gallery, splits[1], strict)
        vectors = extractor(gallery["file"]).numpy()
    asked = extractor(queries["file"]).numpy()
    ranking = rank(asked, queries, vectors, gallery, args.k, args.other_cameras, args.method)
    write_ranking(ranking, out, args.init)
    print(f"{out}: {len(queries)} queries against {len(gallery)} images, {ranking.method} search")

"""What a network retrieves, to look at: queries before the images it holds most similar, as a picture or a page."""

from __future__ import annotations

import base64
import html
import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont, ImageOps

from paul.data.images import read_image
from paul.engine.files import write_atomically
from paul.search import Index

MOST_IN_A_PICTURE = 50
CELL, CAPTION, GAP = (88, 176), 48, 10  # pixels: an image's box, what stands below it, between boxes
SAME, OTHER, INK, FAINT = "#00734f", "#b34700", "#1a1a1a", "#6a6a6a"


@dataclass(frozen=True)
class Ranking:
    """Queries and their most similar gallery images.

    Attributes:
        queries: a row per query: file, person_id, camera_id (-1 where unknown).
        found: a row per query and rank: query (its row), rank from 1, file, person_id, camera_id, similarity (cosine).
        images: how many the gallery has.
        method: of the search ("exact", "flat", "ivf").
    """

    queries: pd.DataFrame
    found: pd.DataFrame
    images: int
    method: str


def rank(
    query_vectors,
    queries: pd.DataFrame,
    gallery_vectors,
    gallery: pd.DataFrame,
    k: int = 10,
    other_cameras: bool = False,
    method: str = "auto",
) -> Ranking:
    """The k gallery images most similar to each query; a query that lies in the gallery does not find itself.

    Args:
        query_vectors, gallery_vectors: descriptors [Q, D] and [G, D] by one network.
        queries, gallery: their rows: file, person_id, camera_id (of `paul.retrieval.embeddings.listed`).
        k: how many, at least 1.
        other_cameras: leave out images of the query's own camera (whose neighbours in time look alike), and, with a
            warning, those of the gallery whose camera is not known: it may be the query's.
        method: of `paul.search.Index`.

    Raises:
        ValueError: k < 1; other_cameras, and a query's camera is unknown, or each one of the gallery.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if other_cameras and (queries["camera_id"] < 0).any():
        lost = queries.loc[queries["camera_id"] < 0, "file"].iloc[0]
        raise ValueError(
            f"the camera of {lost} is not known: take queries out of a prepared set, or leave other_cameras=True out"
        )
    cameras, lines = gallery["camera_id"].to_numpy(), []
    known = cameras >= 0
    if other_cameras and not known.all():
        if not known.any():
            raise ValueError("no image of the gallery says from which camera it is; leave other_cameras=True out")
        warnings.warn(f"left out {(~known).sum()} images of the gallery whose camera is not known", stacklevel=2)
    for camera in sorted(set(queries["camera_id"])) if other_cameras else [None]:
        asked = np.flatnonzero(queries["camera_id"] == camera) if other_cameras else np.arange(len(queries))
        kept = np.flatnonzero(known & (cameras != camera)) if other_cameras else None
        if kept is not None and not len(kept):
            continue
        index = Index(gallery_vectors if kept is None else gallery_vectors[kept], method, queries=len(asked))
        near = index.search(query_vectors[asked], k + 1)
        for query, similarities, positions in zip(asked, near.similarity.tolist(), near.position.tolist()):
            own, place = _identity(queries["file"].iat[query]), 0
            for similarity, position in zip(similarities, positions):
                row = gallery.iloc[position if kept is None else kept[position]]
                if position < 0 or place == k or _identity(row["file"]) == own:
                    continue
                place += 1
                lines.append((query, place, row["file"], row["person_id"], row["camera_id"], similarity))
    columns = ["query", "rank", "file", "person_id", "camera_id", "similarity"]
    found = pd.DataFrame(lines, columns=columns).sort_values(["query", "rank"], ignore_index=True)
    return Ranking(queries, found, len(gallery), index.method if lines else method)


def _identity(file: str):
    """Equal for one image under two names (links, relative paths); the name itself where there is no file any more."""
    try:
        stat = os.stat(file)
        return stat.st_dev, stat.st_ino
    except OSError:
        return os.path.abspath(file)


def _relation(query, line) -> bool | None:
    """Whether both show the same person; None where either is unknown (a distractor is nobody's match)."""
    if query["person_id"] < 1 or line["person_id"] < 0:
        return None
    return bool(query["person_id"] == line["person_id"])


def _place(row) -> list[str]:
    """What is known of an image: its camera, its person."""
    return [f"{word} {row[f'{word}_id']}" for word in ("camera", "person") if row[f"{word}_id"] >= (word == "person")]


def _thumbnail(file: str, box: tuple[int, int]) -> Image.Image | None:
    """The image fitted into the box, None where it cannot be read any more."""
    try:
        return ImageOps.contain(Image.fromarray(read_image(file)), box)
    except ValueError:
        return None


def picture(ranking: Ranking) -> Image.Image:
    """A strip per query: the query, then its gallery by rank with similarity and what is known of camera and person.

    A frame and a word say "same" or "other" person where both are known.

    Raises:
        ValueError: more queries than a picture can show.
    """
    if len(ranking.queries) > MOST_IN_A_PICTURE:
        raise ValueError(
            f"{len(ranking.queries)} queries are too many for a picture (at most {MOST_IN_A_PICTURE}): "
            "write a page instead (-o page.html)"
        )
    columns = 1 + int(ranking.found["rank"].max() if len(ranking.found) else 0)
    wide, high = CELL[0] + GAP, CELL[1] + CAPTION + GAP
    canvas = Image.new("RGB", (columns * wide + 2 * GAP, len(ranking.queries) * high + GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=12)

    def cell(column: int, line: int, file: str, words: list[str], same: bool | None):
        left, top = GAP + column * wide + (GAP if column else 0), GAP + line * high
        image = _thumbnail(file, CELL)
        if image is None:
            draw.rectangle((left, top, left + CELL[0], top + CELL[1]), outline=FAINT)
            draw.text((left + 8, top + CELL[1] // 2), "not there", FAINT, font)
        else:
            canvas.paste(image, (left + (CELL[0] - image.width) // 2, top + CELL[1] - image.height))
        if same is not None:
            draw.rectangle(
                (left - 3, top - 3, left + CELL[0] + 2, top + CELL[1] + 2), outline=SAME if same else OTHER, width=3
            )
        for number, text in enumerate(words):
            while len(text) > 1 and draw.textlength(text, font) > CELL[0] + GAP - 2:
                text = text[:-2] + "\N{HORIZONTAL ELLIPSIS}"
            draw.text((left, top + CELL[1] + 3 + 15 * number), text, INK if number == 0 else FAINT, font)

    for line, (_, query) in enumerate(ranking.queries.iterrows()):
        cell(0, line, query["file"], ["query", *_place(query)], None)
        for _, row in ranking.found[ranking.found["query"] == line].iterrows():
            same = _relation(query, row)
            word = {None: "", True: "  same", False: "  other"}[same]
            cell(row["rank"], line, row["file"], [f"{row['rank']}  {row['similarity']:.3f}{word}", *_place(row)], same)
    return canvas


STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --faint: #5c5c5c; --paper: #ffffff; --line: #d5d5d5;
        --same: #00734f; --other: #b34700; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececec; --faint: #a8a8a8; --paper: #16181b; --line: #3a3d42; --same: #35c492; --other: #ff9a57; } }
body { margin: 2rem auto; max-width: 82rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
       font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1rem; font-weight: 600; margin: 0 0 .6rem; overflow-wrap: anywhere; }
section { border-top: 1px solid var(--line); padding: 1rem 0; }
ol { display: flex; flex-wrap: wrap; gap: .8rem; margin: 0; padding: 0; list-style: none; }
li { width: 96px; font-size: 12px; } li.query { margin-right: 1rem; }
.box { display: flex; align-items: flex-end; justify-content: center; height: 148px; border: 3px solid transparent; }
.box img { max-width: 90px; max-height: 142px; } .box span { color: var(--faint); }
.same .box { border-color: var(--same); } .other .box { border: 3px dashed var(--other); }
.same b { color: var(--same); } .other b { color: var(--other); }
small { display: block; color: var(--faint); font-size: 11px; overflow-wrap: anywhere; }
"""


def page(ranking: Ranking, title: str = "Ranked galleries", model: str = "") -> str:
    """The same as HTML for any number of queries: one file that needs no network, the images inside it."""
    pictures: dict[str, str] = {}

    def image(file: str) -> str:
        if file not in pictures:
            small = _thumbnail(file, (90, 142))
            if small is None:
                pictures[file] = "<span>not there</span>"
            else:
                small.save(buffer := io.BytesIO(), "JPEG", quality=85)
                data = base64.b64encode(buffer.getvalue()).decode()
                pictures[file] = f'<img src="data:image/jpeg;base64,{data}" alt="{html.escape(Path(file).name)}">'
        return pictures[file]

    def item(kind: str, row, head: str) -> str:
        words = "<br>".join([head, *_place(row)])
        return (
            f'<li class="{kind}"><div class="box">{image(row["file"])}</div>{words}'
            f"<small>{html.escape(Path(row['file']).name)}</small></li>"
        )

    sections, by_query = [], dict(list(ranking.found.groupby("query")))
    for number, (_, query) in enumerate(ranking.queries.iterrows()):
        items = [item("query", query, "query")]
        for _, row in by_query.get(number, ranking.found[:0]).iterrows():
            kind = {None: "", True: "same", False: "other"}[_relation(query, row)]
            head = f"{row['rank']}. {row['similarity']:.3f}" + (f" <b>{kind}</b>" if kind else "")
            items.append(item(kind, row, head))
        sections.append(f"<section><h2>{html.escape(query['file'])}</h2><ol>{''.join(items)}</ol></section>")
    about = f"{len(ranking.queries):,} queries, {ranking.images:,} images in the gallery, {ranking.method} search"
    by = f" Described by {html.escape(model)}." if model else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p>{about}. Rank and cosine similarity stand below each image; <b>same</b> and <b>other</b> say whether it shows the
query's person, where that is known.{by} A similarity is no identity: these pictures are candidates to look at.</p>
{"".join(sections)}
</body></html>
"""


def write_ranking(ranking: Ranking, path: str | Path, model: str = "") -> None:
    """Write a .png picture or an .html page, whole or not at all.

    Raises:
        ValueError: another suffix, or too many queries for a picture.
    """
    path = Path(path)
    if path.suffix == ".html":
        text = page(ranking, model=model).encode()
        write_atomically(path, lambda file: file.write(text))
    elif path.suffix == ".png":
        strip = picture(ranking)
        write_atomically(path, lambda file: strip.save(file, "PNG"))
    else:
        raise ValueError(f"{path}: a ranking is written as .png or .html")

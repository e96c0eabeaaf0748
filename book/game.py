"""The front page's game: which of seven rendered people is the one whom another camera saw?"""

from __future__ import annotations

import base64
from pathlib import Path

import pandas as pd

from paul.data.datasets import ReidDataset
from paul.experiments.profiles import PROFILES

from .run import RENDERED
from .toc import ROOT, BookError

LOOKS = ("top", "top_colour", "bottom", "bottom_colour", "shoes", "hair", "hair_colour", "hat", "backpack", "bag")
ROUNDS = 3
PLAYED = """<script>
for (const game of document.querySelectorAll(".game")) {
  const rounds = [...game.querySelectorAll(".round")];
  const show = (n) => rounds.forEach((round, place) => { round.hidden = place !== n % rounds.length; });
  rounds.forEach((round, n) => {
    const said = round.querySelector(".said"), another = document.createElement("button");
    round.querySelector("details").hidden = true;
    for (const one of round.querySelectorAll(".seven button")) one.addEventListener("click", () => {
      const right = "right" in one.dataset;
      one.classList.add(right ? "right" : "wrong");
      said.textContent = right ? "✓ That is the same person." : "✗ Somebody else. Look again.";
    });
    another.type = "button";
    another.textContent = "another person";
    another.addEventListener("click", () => show(n + 1));
    round.append(another);
  });
  show(0);
}
</script>"""


def game(entries: dict) -> str:
    """Which of seven is the same person? With the rendered people the book was run on; "" where there are none."""
    ran = [one for one in entries.values() if one["status"] == "ran" and "data_dir" in one.get("parameters", {})]
    if not ran or ran[-1]["profile"] not in RENDERED:  # pictures of real people are shown nowhere
        return ""
    folder = ROOT / ran[-1]["parameters"]["data_dir"] / PROFILES[ran[-1]["profile"]].folders["market"]
    if not (folder / "index.csv").is_file():
        return ""
    try:
        frame = ReidDataset.load(folder).frame
    except (OSError, ValueError) as error:
        raise BookError(f"{folder}: no people for the front page's game ({error})") from error
    rounds = "\n".join(_round(folder, *one) for one in choose(frame))
    return f"""
## Which of these seven is the same person?

One camera took the large picture; of the seven from other cameras, one shows the same person. All of them are
rendered: nobody is in these pictures.

<div class="game">
{rounds}
</div>

{PLAYED}
"""


def choose(frame: pd.DataFrame) -> list[tuple[str, str, list[str]]]:
    """Rounds of the game as files: query, the same person in another camera, the seven to choose from.

    The six others are the people in the gallery who look most alike to the query by what they wear. The rounds are
    those of the people who are hardest to tell from the others.
    """
    frame = frame[(frame["person_id"] > 0) & (frame["occluder"] == "none")]
    if "clothes" in frame:  # people whom clothes don't tell apart would be no fair game
        frame = frame[frame["clothes"] == "own"]
    looks = [column for column in LOOKS if column in frame]
    queries = frame[frame["split"] == "query"].drop_duplicates("person_id")
    gallery = frame[frame["split"] == "gallery"].sort_values("file")
    rounds = []
    for query in queries.to_dict("records"):
        alike = (gallery[looks] == [query[column] for column in looks]).sum(axis=1)
        elsewhere = gallery[gallery["camera_id"] != query["camera_id"]].assign(alike=alike)
        right = elsewhere[elsewhere["person_id"] == query["person_id"]]
        others = elsewhere[elsewhere["person_id"] != query["person_id"]]
        others = others.sort_values(["alike", "file"], ascending=[False, True]).drop_duplicates("person_id").head(6)
        if len(right) and len(others) == 6:
            seven = sorted([right["file"].iloc[0], *others["file"]], key=lambda file: file[::-1])
            rounds.append((int(others["alike"].sum()), query["file"], right["file"].iloc[0], seven))
    rounds.sort(key=lambda one: (-one[0], one[1]))
    return [tuple(one[1:]) for one in rounds[:ROUNDS]]


def _round(folder: Path, query: str, right: str, seven: list[str]) -> str:
    choices = "".join(
        f'<button type="button"{" data-right" if file == right else ""}>'
        f'<img src="{_inline(folder / file)}" alt="candidate {number}"><span>{number}</span></button>'
        for number, file in enumerate(seven, 1)
    )
    return (
        f'<div class="round"><img class="query" src="{_inline(folder / query)}" alt="the person to find again">'
        f'<div class="seven">{choices}</div><p class="said" aria-live="polite"></p>'
        f"<details><summary>Answer</summary>Number {seven.index(right) + 1}.</details></div>"
    )


def _inline(path: Path) -> str:
    kind = "png" if path.suffix == ".png" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"

"""The two things to play with, each a script on precomputed data that a page holds whole: nothing is loaded.

`<!-- widget: pedal -->` in a page or a chapter is where pedal.js goes. Before it runs, and where it can't, the picture
in pedal.html stands there, which is the script's own first one.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = ("pedal", "cyclic")


def with_widgets(text: str) -> str:
    """The markdown text with each widget in its place."""
    return re.sub(rf"<!-- widget: ({'|'.join(NAMES)}) -->", lambda place: fragment(place[1]), text)


def fragment(name: str) -> str:
    """A widget as HTML: its first picture, then the script, which looks for the box before it."""
    data = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    del data["cases"]
    script, still = ((HERE / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("js", "html"))
    return f"""<div class="widget" data-widget="{name}">{still.strip()}</div>

<script>
(() => {{
{script}
mount(document.currentScript.previousElementSibling, {json.dumps(data)});
}})();
</script>
"""

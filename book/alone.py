"""A notebook as one HTML file: style, pictures and the typesetting of formulas inside, nothing beside it."""

from __future__ import annotations

import copy
import io
from base64 import b64decode, b64encode
from functools import cache
from html import escape
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from PIL import Image

# JupyterLab's look without what its template loads from a network: require.js, widgets, Mermaid and MathJax
TEMPLATE = """{% extends "lab/index.html.j2" %}
{% block html_head_js_requirejs %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_js_mathjax %}
<style>
main { max-width: 60rem; margin: auto }
.jp-OutputArea-output img { max-width: 100%; height: auto }
figure { margin: 0.5rem 0 }
figcaption { font-size: 0.9rem; color: #555; margin-top: 0.3rem }
.celltag_remove-input .jp-Cell-inputWrapper { display: none }
@media print { pre { white-space: pre-wrap !important } }
</style>
{% if resources.mathjax %}
<script>MathJax = {tex: {inlineMath: [["$", "$"], ["\\\\(", "\\\\)"]], tags: "ams"}}</script>
<script>{{ resources.mathjax }}</script>
{% endif %}
{% endblock %}
"""


@cache
def _mathjax() -> str:
    """The script that needs no fonts: formulas become SVG."""
    folder = Path(find_spec("sphinx-mathjax-offline").submodule_search_locations[0])
    return (folder / "static" / "mathjax" / "tex-svg.js").read_text(encoding="utf-8").replace("</script", "<\\/script")


def as_webp(png: bytes) -> bytes:
    """The same pixels in about half the bytes."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture, io.BytesIO() as file:
        picture.save(file, "WEBP", lossless=True, exact=True)
        return file.getvalue()


def _with_caption(output: NotebookNode, told: dict) -> NotebookNode:
    """A picture as a figure with its caption below."""
    kind, data = next((kind, data) for kind, data in output.data.items() if kind.startswith("image/"))
    caption = escape(told["figure"]["caption"]).replace("**", "<b>", 1).replace("**", "</b>", 1)
    if kind == "image/png":
        kind, data = "image/webp", b64encode(as_webp(b64decode(data))).decode()
    elif kind == "image/svg+xml":
        data = b64encode(data.encode()).decode()
    picture = f'<img src="data:{kind};base64,{data}" alt="{escape(told["image"]["alt"])}">'
    html = f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"
    return nbformat.v4.new_output("display_data", {"text/html": html})


def alone(notebook: NotebookNode, title: str) -> str:
    """The page of an executed notebook, its code and outputs, to be read or printed without network."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if "mystnb" in cell.metadata:
            cell.outputs = [_with_caption(output, cell.metadata["mystnb"]) for output in cell.outputs]
    formulas = any("$" in cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    exporter = HTMLExporter(raw_template=TEMPLATE, embed_images=True)
    resources = {"metadata": {"name": title}, "mathjax": _mathjax() if formulas else ""}
    return exporter.from_notebook_node(notebook, resources=resources)[0]

"""Sphinx's configuration. Nothing here, nor in the pages made with it, is fetched from a network."""

import os
from html import escape

from book.toc import load_book

book = load_book()
project = book.title
author = "the PAUL book authors"
copyright = author
html_title = project

extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the driver ran the notebooks; a page shows what it wrote
nb_merge_streams = True
nb_ipywidgets_js = {}  # the default is fetched from a network
nb_render_markdown_format = "myst"
exclude_patterns = ["downloads"]
suppress_warnings = ["mystnb.unknown_mime_type"]

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_copy_source = False  # each chapter offers the notebook that ran
html_show_sphinx = False
html_use_index = False
html_theme_options = {
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "use_repository_button": False,
    "logo": {"text": project},
    "navbar_persistent": [],
    "primary_sidebar_end": [],
    "toc_title": "In this chapter",
}

# What a messenger shows of a link: title, a sentence and the picture. Its address has to be a whole one, so it needs to
# know where the pages will stand.
html_baseurl = os.environ.get("BOOK_URL", "")
LESSONS = {f"chapters/{chapter.slug}": chapter.teaches for chapter in book.chapters}


def preview(app, page, template, context, doctree):
    title = project if page == "index" else context.get("title", project)
    card = {"title": title, "description": LESSONS.get(page, book.subtitle), "type": "article", "site_name": project}
    if (app.srcdir / "contact.png").is_file():
        card["image"] = (html_baseurl.rstrip("/") + "/" if html_baseurl else context["content_root"]) + "card.png"
    tags = [f'<meta property="og:{name}" content="{escape(said)}">' for name, said in card.items()]
    context["metatags"] = "\n".join([context.get("metatags", ""), *tags])


def setup(app):
    app.connect("html-page-context", preview)

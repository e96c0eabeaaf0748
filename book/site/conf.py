"""Sphinx's configuration. Nothing here, nor in the pages made with it, is fetched from a network."""

from book.toc import load_book

project = load_book().title
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

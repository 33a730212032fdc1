"""How Sphinx builds these pages: `make docs`.

The pages are plain Markdown, which a code host shows as it is. Links to files of the repository
work in both: in the built pages they are copies to download.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

project = "jaxomarl"
author = "the authors of jaxomarl"
extensions = ["myst_parser", "sphinx.ext.autodoc", "from_docstrings"]
exclude_patterns = ["evidence/**", "notebook.ipynb"]

# --- Markdown ---

myst_heading_anchors = 4
"""Headings have the anchors of a code host, so that links to them work in both."""

# --- docstrings ---

default_role = "code"
smartquotes = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
nitpick_ignore_regex = [
    # types of other packages have no page here
    ("py:.*", r"(?!jaxomarl\.).*"),
    # type variables have none
    ("py:class", r"jaxomarl\..*\.[A-Z]"),
]

# --- HTML ---

html_theme = "furo"
html_title = "jaxomarl"
html_copy_source = False
html_show_copyright = False

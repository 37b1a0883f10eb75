"""Sphinx makes the pages of this folder, and needs no network: ``python -m sphinx -W docs build/docs``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

import pop3toy

project = "pop3toy"
author = "the pop3toy authors"
copyright = "the pop3toy authors"
version = release = pop3toy.__version__

extensions = ["sphinx.ext.autodoc", "zope_interfaces", "plain_links"]
exclude_patterns = ["_extensions"]
html_theme = "alabaster"
html_theme_options = {"description": pop3toy.__doc__.splitlines()[0], "page_width": "70rem"}
html_show_copyright = False
# The pages are read as they are in the repository too; there the source is.
html_copy_source = False

autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# Settings and their like: a line for each argument.
maximum_signature_line_length = 90

"""The documentation: `sphinx-build -W pretrain/docs FOLDER` writes it; its gallery is run."""

import os
import re

# The build must not depend on how many cores there are, nor print what TensorFlow logs.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib

matplotlib.use("agg")
keras.utils.disable_interactive_logging()

project = "pretrain"
html_title = "pretrain"
html_theme = "furo"
html_copy_source = False
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["gallery/*"]
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autosummary_generate = False
# What stands in backticks in a docstring is code.
default_role = "code"
napoleon_google_docstring = True
napoleon_custom_sections = ["Reference"]
myst_enable_extensions = ["colon_fence"]
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "filename_pattern": r"\.py$",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "min_reported_time": 0,
    "show_memory": False,
    "show_signature": False,
    "within_subsection_order": "FileNameSortKey",
}


def setup(app) -> None:
    app.connect("autodoc-process-docstring", _link)


def _link(app, what, name, obj, options, lines: list[str]) -> None:
    """Make a link of reStructuredText of every link of Markdown in a docstring."""
    text = re.sub(r"\[([^\[\]]+)\]\((https?://[^)]+)\)", r"`\1 <\2>`__", "\n".join(lines))
    lines[:] = text.split("\n")

"""How Sphinx builds the manual: Markdown, the reference from docstrings, nothing fetched from elsewhere."""

from importlib.metadata import version as installed_version

project = "Umbel"
author = "The Umbel developers"
copyright = "The Umbel developers"
release = version = installed_version("umbel")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Links out of the manual, such as ../README.md, work in the repository; here they are plain text.
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# Adapters of packages that are not needed to describe them.
autodoc_mock_imports = ["torch", "safetensors", "flwr", "jax", "xgboost"]
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "Umbel"
html_show_sphinx = False

"""The site: `make site` builds these pages with Sphinx and MyST into docs/_build."""

project = "vram-plan"
copyright = "the vram-plan authors, Apache-2.0"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "vram-plan"
html_show_sphinx = False

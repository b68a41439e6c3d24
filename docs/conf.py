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


def setup(app):  # noqa: ANN001, ANN201
    """Consoles are shown as they are: most of each is output, which no shell's grammar fits."""
    from pygments.lexers.special import TextLexer

    app.add_lexer("console", TextLexer)

"""How Sphinx builds these pages; ``scripts/check docs`` does it, and fails on a broken link."""

from __future__ import annotations

from mayfly import __version__

project = "Mayfly"
release = __version__
version = __version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"Mayfly {release}"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False

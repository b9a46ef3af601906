"""How Sphinx builds these pages."""

project = "Labwright"
author = "The Labwright authors"
copyright = "The Labwright authors"  # noqa: A001 - Sphinx wants this name
release = "0.1.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
autodoc_typehints = "description"
# References that leave the project stay plain: resolving them would fetch other projects' inventories.
nitpick_ignore_regex = [("py:.*", r"(?!labwright).*")]

html_theme = "furo"
html_title = "Labwright"

"""How Sphinx makes the pages; `tools/build_site.py` writes what it makes them of."""

import os

HOME = os.environ.get("GAP_HOME", "")  # where the project is published

project = "Global average pooling"
author = "the GAP lessons' authors"
copyright = author
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
add_module_names = False
default_role = "code"
napoleon_custom_sections = ["Source"]
napoleon_numpy_docstring = False

html_theme = "sphinx_book_theme"
html_title = "Global average pooling"
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["lab.css", "pages.css"]
html_js_files = [("site.js", {"type": "module"})]
html_copy_source = False
html_use_index = html_domain_indices = False  # the search finds more
html_show_sphinx = False
html_favicon = "favicon.svg"
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system
html_theme_options = {
    "use_download_button": False,  # each lesson has its own link to the notebook
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the search is in the sidebar
    "show_navbar_depth": 1,
    "show_toc_level": 2,
}
if HOME:
    html_theme_options |= {"repository_url": HOME, "use_repository_button": True}

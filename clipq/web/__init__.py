"""The pages that people look at: JavaScript and styles of the HTML report and of the trend site.

`report/` and `site/` hold what is one page's own, `shared/` what both use. Modules import what they
need from each other; each page is given one script of them all.
"""

from clipq.web.bundle import page_script, page_styles, page_template

__all__ = ["page_script", "page_styles", "page_template"]

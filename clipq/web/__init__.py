"""The pages that people look at: scripts and styles of the report, the trend site and the study.

`report/`, `site/` and `study/` hold what is one page's own, `shared/` what several use. Modules
import what they need from each other; each page is given one script of them all.
"""

from clipq.web.bundle import page_script, page_styles, page_template
from clipq.web.inert import embed, page_policy

__all__ = ["embed", "page_policy", "page_script", "page_styles", "page_template"]

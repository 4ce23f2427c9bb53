"""The HTML report: one file that opens offline in any browser, charts and search included."""

from clipq.report.html.page import html

__all__ = ["html"]

"""The one place that reads pytest's node ids: under which unit a test is counted.

The live line groups tests by what stands in their node ids' brackets, whoever wrote it there: good
enough for an estimate of the time left. Attribution is `clipq.pytest_items`' matter.
"""

from __future__ import annotations

__all__ = ["bracketed"]


def bracketed(node_id: str) -> str:
    """Return what a node id has in brackets; "" where it has none.

    >>> bracketed("test_reliability.py::test_reliability[vit-clean/rtn:w8/id.ece]")
    'vit-clean/rtn:w8/id.ece'
    >>> bracketed("suite[gpu]/test_mine.py::test_mine")  # a folder's name is no parameter
    ''
    """
    test = node_id.partition("::")[2]
    start, end = test.find("["), test.rfind("]")
    return test[start + 1 : end] if 0 <= start < end else ""

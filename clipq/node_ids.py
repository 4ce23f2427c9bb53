"""The one place that reads pytest's node ids: which case or kernel check a test is of.

On the controller of `pytest -n`, a node id is all there is of a test before it reports. It is used
for attribution alone; results carry the case that they are of.
"""

from __future__ import annotations

__all__ = ["bracketed"]


def bracketed(node_id: str) -> str:
    """Return what a node id has in brackets; "" where it has none.

    >>> bracketed("test_reliability.py::test_reliability[vit-clean/rtn:w8/id.ece]")
    'vit-clean/rtn:w8/id.ece'
    """
    start, end = node_id.find("["), node_id.rfind("]")
    return node_id[start + 1 : end] if 0 <= start < end else ""

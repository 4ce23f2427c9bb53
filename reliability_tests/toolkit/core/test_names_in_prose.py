"""What docstrings and pages name of clipq is there: modules, functions, files."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import clipq

REPOSITORY = Path(clipq.__file__).parents[1]
TEXTS = [
    *sorted((REPOSITORY / "clipq").rglob("*.py")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")),
]
DOTTED = re.compile(r"`(clipq(?:\.\w+)+)(?:\(\))?`")
PATH = re.compile(r"`((?:clipq|reliability_tests|fixtures|benchmarks|docs)/[\w./-]+)`")
OTHERS = {"clipq.objectives", "clipq.probes", "clipq.reports", "clipq.toml"}
"""A file, and groups of entry points that no attribute is called after."""


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute (or field) of what is before it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if part in getattr(found, "__dataclass_fields__", {}):
                return True
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_what_is_named_is_there(path):
    text = path.read_text(encoding="utf-8")
    assert [n for n in DOTTED.findall(text) if n not in OTHERS and not is_there(n)] == []
    assert [name for name in PATH.findall(text) if not (REPOSITORY / name).exists()] == []


def test_what_is_not_there_is_noticed():
    assert is_there("clipq.records.CaseResult")
    assert not is_there("clipq.records.CaseReslt")
    assert not is_there("clipq.nowhere")

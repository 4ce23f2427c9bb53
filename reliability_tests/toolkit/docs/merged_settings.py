"""Fragments of clipq.toml as pages show them, completed by a whole one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_ONE = ("in-distribution", "calibration")  # roles that exactly one probe has


def merged(whole: Mapping[str, Any], fragment: Mapping[str, Any]) -> dict[str, Any]:
    """Return `whole` with what `fragment` says: keys replaced, named tables added or replaced."""
    result = dict(whole)
    for key, value in fragment.items():
        if isinstance(value, Mapping):
            result[key] = merged(result.get(key, {}), value)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            result[key] = [e for e in result.get(key, []) if not _replaced(e, value)] + value
        else:
            result[key] = value
    return result


def _replaced(entry: Mapping[str, Any], by: list[Mapping[str, Any]]) -> bool:
    return any(
        entry["name"] == other.get("name")
        or (entry.get("role") in _ONE and entry.get("role") == other.get("role"))
        for other in by
    )


def toml(document: Mapping[str, Any], prefix: str = "") -> str:
    """Return a settings document as TOML; its plain values are written as JSON writes them."""
    lines, tables = [], []
    for key, value in document.items():
        name = f"{prefix}{json.dumps(key)}"
        if isinstance(value, Mapping):
            tables.append(f"\n[{name}]\n{toml(value, f'{name}.')}")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables += [f"\n[[{name}]]\n{toml(entry, f'{name}.')}" for entry in value]
        else:
            lines.append(f"{json.dumps(key)} = {json.dumps(value)}\n")
    return "".join([*lines, *tables])

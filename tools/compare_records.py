"""Compare two run records (report.json) case by case: is every number and every verdict the same?

    python tools/compare_records.py BEFORE AFTER [--renamed OLD=NEW ...] [--fields loss verdict ...]

For a change of the code that must not change a result. Values are equal or they are not: nothing is
tolerated. Records are read as plain JSON, so that one written by older code can be compared; the
numbers of an estimate are found in the case itself or in its "estimate". A field that neither
record holds is left out of the comparison of that case.

Exit code: 0 everything is equal, 1 something differs or is on one side only, 2 a record or an
option cannot be used.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIELDS = (
    "verdict",
    "baseline",
    "observed",
    "loss",
    "margin",
    "low",
    "high",
    "p_value",
    "adjusted_p",
    "standard_error",
    "samples",
    "samples_needed",
)
_KEY = ("model", "quantizer", "probe", "metric")

Key = tuple[str, str, str, str]
Case = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found: cases on one side only, and (case, field, before, after) that differ."""

    compared: int
    only_before: tuple[Key, ...]
    only_after: tuple[Key, ...]
    differences: tuple[tuple[Key, str, object, object], ...]

    @property
    def differing(self) -> int:
        """How many of the compared cases differ in a field at least."""
        return len({key for key, *_ in self.differences})

    @property
    def equal(self) -> bool:
        return not (self.only_before or self.only_after or self.differences)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument(
        "--renamed",
        action="append",
        default=[],
        type=_renaming,
        metavar="OLD=NEW",
        help="a metric that has another name in AFTER; may be given often",
    )
    parser.add_argument("--fields", nargs="+", choices=FIELDS, default=FIELDS, metavar="FIELD",
                        help=f"what to compare, of {', '.join(FIELDS)}; default: all")  # fmt: skip
    parser.add_argument("--first", type=int, default=20, help="differences to show (20)")
    options = parser.parse_args(arguments)
    try:
        before = read_cases(options.before, dict(options.renamed))
        after = read_cases(options.after)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    unknown = sorted(set(dict(options.renamed).values()) - {key[3] for key in after})
    if unknown:
        parser.error(f"{options.after} has no metric {unknown[0]!r}, which --renamed names")
    found = compare(before, after, options.fields)
    for line in lines(found, options.first):
        print(line)
    return 0 if found.equal else 1


def read_cases(path: Path, renamed: Mapping[str, str] | None = None) -> dict[Key, Case]:
    """Return the cases of a record, flat, by model, quantizer, probe and metric.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no record, or names a case twice.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("cases"), list):
        raise ValueError(f"{path} is no run record: it has no list of cases")
    found: dict[Key, Case] = {}
    for number, case in enumerate(document["cases"]):
        *cell, metric = _key(case, f"{path}: case {number}")
        key = (*cell, (renamed or {}).get(metric, metric))
        if key in found:
            raise ValueError(f"{path} holds {_name(key)} twice")
        found[key] = {**case, **(case.get("estimate") or {})}
    return found


def compare(
    before: Mapping[Key, Case], after: Mapping[Key, Case], fields: Sequence[str] = FIELDS
) -> Comparison:
    """Compare the cases of two records.

    A field that is absent on one side is equal to null on the other: records leave out what was not
    estimated.
    """
    both = sorted(before.keys() & after.keys())
    differences = []
    for key in both:
        for field in fields:
            old, new = before[key].get(field), after[key].get(field)
            if not _same(old, new):
                differences.append((key, field, old, new))
    return Comparison(
        len(both),
        tuple(sorted(before.keys() - after.keys())),
        tuple(sorted(after.keys() - before.keys())),
        tuple(differences),
    )


def lines(found: Comparison, first: int) -> list[str]:
    """Return what is printed: counts, then the first of what differs."""
    shown = [
        f"{found.compared:,} cases compared: {found.compared - found.differing:,} equal, "
        f"{found.differing:,} differ; {len(found.only_before):,} only before, "
        f"{len(found.only_after):,} only after"
    ]
    listed = [f"only before: {_name(key)}" for key in found.only_before]
    listed += [f"only after: {_name(key)}" for key in found.only_after]
    listed += [f"{_name(key)}: {f} {old!r} -> {new!r}" for key, f, old, new in found.differences]
    shown += listed[:first]
    if len(listed) > first:
        shown.append(f"and {len(listed) - first:,} more")
    return shown


def _key(case: Case, where: str) -> Key:
    """Return the names of a case, from its own fields or from its id."""
    if all(name in case for name in _KEY):
        return tuple(str(case[name]) for name in _KEY)
    model, _, rest = str(case.get("case", "")).partition("/")
    quantizer, _, name = rest.rpartition("/")
    probe, _, metric = name.rpartition(".")
    if not (quantizer and probe and metric):
        raise ValueError(f"{where} has neither {', '.join(_KEY)} nor an id that names them")
    return model, quantizer, probe, metric


def _same(old: object, new: object) -> bool:
    if isinstance(old, float) and isinstance(new, float) and old != old:
        return new != new  # NaN
    return old == new and (type(old) is type(new) or (_number(old) and _number(new)))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name(key: Key) -> str:
    model, quantizer, probe, metric = key
    return f"{model}/{quantizer}/{probe}.{metric}"


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise argparse.ArgumentTypeError(f"{text!r} is not OLD=NEW")
    return old, new


if __name__ == "__main__":
    sys.exit(main())

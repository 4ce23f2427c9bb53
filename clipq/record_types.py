"""The types that the fields of a run record have; docs/report.schema.json says more.

Checked by hand, for a JSON Schema validator takes longer than everything else that reads a record.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from clipq.errors import RecordError

__all__ = ["check_types"]

_NUMBER = (float, int, type(None))
_CASE_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("model", "quantizer", "probe", "metric", "verdict", "reason"), (str,)),
    **dict.fromkeys(("unit", "direction", "next_command", "waived_by"), (str,)),
    **dict.fromkeys(("metric_version", "samples"), (int,)),
    **dict.fromkeys(("baseline", "observed", "noise"), _NUMBER),
    "estimate": (dict,),
}
_ESTIMATE_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("loss", "margin", "low", "high", "standard_error"), _NUMBER),
    **dict.fromkeys(("p_value", "adjusted_p"), _NUMBER),
    "samples_needed": (int, type(None)),
}
_KERNEL_TYPES: dict[str, tuple[type, ...]] = dict.fromkeys(
    ("kernel", "check", "outcome", "reason", "where", "source"), (str,)
)
_COMMIT_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("sha", "date", "subject", "branch"), (str,)),
    "dirty": (bool,),
}
_WAIVER_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("reason", "owner", "expires"), (str,)),
    **dict.fromkeys(("cases", "waived"), (list,)),
}
_SIZE_TYPES: dict[str, tuple[type, ...]] = dict.fromkeys(("of", "kernel-checks-of"), (int,))
_RUN_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("policy", "started"), (str,)),
    "planned": (int,),
    **dict.fromkeys(("cases", "unreported", "warnings", "kernels", "waivers", "problems"), (list,)),
    **dict.fromkeys(("selection", "versions", "timings", "statistics"), (dict,)),
    **dict.fromkeys(("evidence", "commit"), (dict,)),
}
_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "an object",
}


def check_types(plain: Mapping[str, Any]) -> None:
    """Refuse a record in plain form of which a field has a type that no reader expects.

    Raises:
        RecordError: names the field, what it is and what it must be.
    """
    _check_fields("", plain, _RUN_TYPES)
    _check_fields("commit.", plain.get("commit", {}), _COMMIT_TYPES)
    _check_fields("selection.", plain["selection"], _SIZE_TYPES)
    for name in ("unreported", "warnings", "problems"):
        _check_each(name, plain.get(name, ()), (str,))
    for name, types in (
        ("cases", _CASE_TYPES),
        ("kernels", _KERNEL_TYPES),
        ("waivers", _WAIVER_TYPES),
    ):
        _check_each(name, plain.get(name, ()), (dict,))
        for at, entry in enumerate(plain.get(name, ())):
            _check_fields(f"{name}[{at}].", entry, types)
            _check_fields(f"{name}[{at}].estimate.", entry.get("estimate", {}), _ESTIMATE_TYPES)
    for name, wanted in (("versions", (str,)), ("timings", (float, int)), ("evidence", (dict,))):
        _check_fields(f"{name}.", plain[name], dict.fromkeys(plain[name], wanted))
    for kind, entries in plain["evidence"].items():
        _check_fields(f"evidence.{kind}.", entries, dict.fromkeys(entries, (dict,)))


def _check_each(name: str, values: Sequence[Any], wanted: tuple[type, ...]) -> None:
    for at, value in enumerate(values):
        if type(value) not in wanted:
            raise _mistyped(f"{name}[{at}]", value, wanted)


def _check_fields(
    where: str, plain: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]
) -> None:
    for name, wanted in types.items():
        if name in plain and type(plain[name]) not in wanted:
            raise _mistyped(where + name, plain[name], wanted)


def _mistyped(field: str, value: Any, wanted: tuple[type, ...]) -> RecordError:
    allowed = " or ".join(_WORDS[kind] for kind in wanted if kind is not int or float not in wanted)
    return RecordError(
        f"a run record whose {field} is {_WORDS.get(type(value), type(value).__name__)} "
        f"({reprlib.repr(value)}); it must be {allowed}",
        hint="restore the file as the gate wrote it, or run the gate again",
    )

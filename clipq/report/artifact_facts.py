"""What a record says of an artifact, in words: where quantizers have code and coverage.

onnxruntime 1.32.0, image.onnx 658bddab, text.onnx 0f3c9d11, batch 64, precision f32, avx512_vnni
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from clipq.artifact_settings import FP32_TOWER, IoSettings, SessionSettings
from clipq.recorded_evidence import recorded_hashes
from clipq.records import RunRecord

__all__ = [
    "artifact_details",
    "artifact_line",
    "artifact_remarks",
    "artifact_rows",
    "executed_text",
    "files_text",
    "findings",
    "is_wrong",
    "latency_text",
    "operators_text",
]

Entry = Mapping[str, Any]
_DIGITS = 8  # of a hash


def artifact_line(entry: Entry) -> str:
    """Return what identifies an artifact's results: runtime, files, batch, session, processor.

    Args:
        entry: of a record's evidence.

    >>> artifact_line({"runtime": "onnxruntime", "versions": {"onnxruntime": "1.32.0"},
    ...                "files": {"image": {"deploy/i.onnx": "658bddab" * 8}}, "batch": 64,
    ...                "session": {"threads": 1, "env": {"A": "b"}}, "cpu": ["avx2"]})
    'onnxruntime 1.32.0, i.onnx 658bddab, batch 64, threads 1, A=b, avx2'
    """
    said = artifact_rows(entry)
    batch = f"batch {said['batch']}" if "batch" in said else ""
    recipe = f"recipe {said['recipe']}" if "recipe" in said else ""
    parts = [said.get(name, "") for name in ("runtime", "files")]
    parts += [recipe, batch, *(said.get(name, "") for name in ("session", "io", "processor"))]
    return ", ".join(filter(None, parts))


def artifact_rows(entry: Entry) -> dict[str, str]:
    """Return everything that a record says of an artifact but its findings, by title.

    Args:
        entry: of a record's evidence.

    >>> artifact_rows({"runtime": "openvino", "batch": 1, "format": "w8a8"})
    {'runtime': 'openvino', 'batch': '1', 'format': 'w8a8'}
    """
    versions = dict(entry.get("versions", {}))
    own = versions.pop(entry["runtime"], "")
    ran = [f"{entry['runtime']} {own}".strip()]
    rows = {
        "runtime": ", ".join([*ran, *(f"{name} {version}" for name, version in versions.items())]),
        "files": files_text(entry),
        "recipe": str(entry.get("recipe", "")),
        "batch": str(entry.get("batch") or ""),
        "format": str(entry.get("format", "")),
        "session": ", ".join(_chosen(entry.get("session", {}), asdict(SessionSettings()))),
        "io": ", ".join(_chosen(entry.get("io", {}), asdict(IoSettings()))),
        "processor": " ".join(entry.get("cpu", [])),
        "executed in": executed_text(entry),
        "operators": operators_text(entry),
        "latency": latency_text(entry),
    }
    return {title: text for title, text in rows.items() if text}


def artifact_details(entry: Entry) -> tuple[str, ...]:
    """Return what stands below an artifact's line: operators, what it ran in, its latency.

    >>> artifact_details({"milliseconds": 3.1, "executed": {"image": {"precision": "f32"}}})
    ('image: f32', '3.1 ms')
    """
    said = operators_text(entry), executed_text(entry), latency_text(entry)
    return tuple(filter(None, said))


def files_text(entry: Entry) -> str:
    """Return an artifact's files, each with the first digits of its sha256.

    >>> files_text({"files": {"text": {"deploy/t.onnx": "0f3c9d11" * 8}}})
    't.onnx 0f3c9d11'
    """
    held = recorded_hashes(entry).items()
    named = [f"{path.rpartition('/')[2]} {sha[:_DIGITS]}" for path, sha in held]
    if len(named) > 8:  # a folder of features, say
        named = [*named[:8], f"{len(named) - 8:,} more files"]
    if entry.get("towers") == "vision":
        named.append(f"text tower {FP32_TOWER}")
    return ", ".join(named)


def operators_text(entry: Entry) -> str:
    """Return, per tower, how many operators are quantized and how many products are in float.

    It stands where a quantizer's coverage does; "" where no file says.

    >>> operators_text({"looks": {"image": {"quantized": {"MatMulInteger": 12}, "in_float": {}},
    ...                           "text": {"quantized": {}, "in_float": {"Gemm": 9}}}})
    'image: 12 operators quantized, no product in float; text: none quantized, 9 Gemm in float'
    """
    said = []
    for tower, look in entry.get("looks", {}).items():
        quantized = sum(look.get("quantized", {}).values())
        in_float = dict(look.get("in_float", {}))
        if not quantized and not in_float:
            continue
        operators = f"{quantized:,} operators quantized" if quantized else "none quantized"
        left = ", ".join(f"{count:,} {name}" for name, count in in_float.items())
        rest = f"{left} in float" if left else "no product in float"
        said.append(f"{tower}: {operators}, {rest}")
    return "; ".join(said)


def executed_text(entry: Entry) -> str:
    """Return what each tower was executed in and by, where the runtime says; "" elsewhere.

    >>> executed_text({"executed": {"image": {"precision": "bf16", "provider": "CPU"}}})
    'image: bf16, CPU'
    """
    said = []
    for tower, facts in entry.get("executed", {}).items():
        known = [str(facts[name]) for name in ("precision", "provider") if facts.get(name)]
        if known:
            said.append(f"{tower}: {', '.join(known)}")
    return "; ".join(said)


def latency_text(entry: Entry) -> str:
    """Return measured milliseconds, and the ratio to FP32's where these were measured too.

    >>> latency_text({"milliseconds": 3.1, "measured_on": "phone", "ratio_to_fp32": 0.4})
    '3.1 ms on phone, 40% of FP32'
    """
    if "milliseconds" not in entry:
        return ""
    where = f" on {entry['measured_on']}" if entry.get("measured_on") else ""
    ratio = f", {entry['ratio_to_fp32']:.0%} of FP32" if "ratio_to_fp32" in entry else ""
    return f"{entry['milliseconds']:.4g} ms{where}{ratio}"


def findings(record: RunRecord) -> Iterator[tuple[str, Entry]]:
    """Yield each candidate with each of its artifact's findings; of all, what is wrong first.

    >>> list(findings(RunRecord("ci", 0, ())))
    []
    """
    artifacts = record.evidence().get("artifacts", {}).items()
    found = [
        (candidate, one) for candidate, entry in artifacts for one in entry.get("findings", [])
    ]
    yield from sorted(found, key=lambda pair: not is_wrong(pair[1]))


def is_wrong(finding: Entry) -> bool:
    """Whether a finding cannot be meant; else it is a note, worth knowing.

    >>> is_wrong({"kind": "batch-dependence", "problem": "...", "wrong": False})
    False
    """
    return bool(finding.get("wrong", True))


def artifact_remarks(entry: Entry) -> tuple[str, ...]:
    """Return what the line of a candidate says of its artifact; () where all is well.

    >>> artifact_remarks({"findings": [{"kind": "precision", "problem": "ran in bf16, f32 asked"}]})
    ('1 finding: ran in bf16, f32 asked',)
    """
    found = [one for one in entry.get("findings", []) if is_wrong(one)]
    notes = [one for one in entry.get("findings", []) if not is_wrong(one)]
    remarks = []
    if len(found) == 1:
        remarks.append(f"1 finding: {found[0]['problem']}")
    elif found:
        remarks.append(f"{len(found)} findings: {_kinds(found)}")
    if notes:
        remarks.append(f"{len(notes)} note{'' if len(notes) == 1 else 's'}: {_kinds(notes)}")
    quantized = any(look.get("quantized") for look in entry.get("looks", {}).values())
    if quantized:
        remarks.append(_left_in_float(entry["looks"]))
    return tuple(filter(None, remarks))


def _kinds(found: Sequence[Entry]) -> str:
    return ", ".join(dict.fromkeys(str(each["kind"]) for each in found))


def _left_in_float(looks: Mapping[str, Entry]) -> str:
    left = {tower: sum(look.get("in_float", {}).values()) for tower, look in looks.items()}
    parts = [f"{count:,} of {tower}" for tower, count in left.items() if count]
    return f"products left in float: {', '.join(parts)}" if parts else ""


def _chosen(given: Entry, usual: Entry) -> list[str]:
    """Return what is not as usual: ``threads 1``, and of tables ``NAME=VALUE``."""
    parts = []
    for name, value in given.items():
        if isinstance(value, Mapping):
            parts += [f"{key}={held}" for key, held in value.items()]
        elif value not in ("", None) and value != usual.get(name):
            parts.append(f"{name.replace('_', ' ')} {value}")
    return parts

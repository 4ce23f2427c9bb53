"""Latencies measured where the model is deployed, for reports to set against reliability.

A simulated quantizer's own time says nothing of the kernels that will run, so a gate measures none:
the file that `latency` in clipq.toml names holds what was measured elsewhere, of quantizers and of
artifacts. Where it holds FP32's time of a model as well, reports show ratios.

    device = "Jetson Orin, batch 1"
    [milliseconds]
    "vit-b-32/rtn:w8a8" = 3.1
    "vit-b-32/fp32" = 7.9

An artifact's own time is that of what ships. `clipq artifact check --latency FILE` writes it, with
FP32's own number beside it, measured in turn with as many threads and as large a batch:

    [fp32]
    "vit-b-32/ort-int8" = 8.1
    [measured]
    "vit-b-32/ort-int8" = "onnxruntime, batch 1, threads 1"
"""

from __future__ import annotations

import json
import math
import platform
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, NotRequired, Required

from clipq.cases import FP32, Candidate
from clipq.errors import SettingsError, did_you_mean
from clipq.files import write_atomically
from clipq.shapes import Document, Text, between, table

__all__ = ["Latencies", "Measured", "check_device", "keep_latencies", "load_latencies"]


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds per image of ``model/quantizer``, and the device that they were measured on.

    `fp32` holds FP32's own number where it was measured in turn with a pair, and `measured` how. A
    tuned logit scale changes no time: a candidate with one takes as long as the one without.

    >>> pair = "b32/ort-int8"
    >>> found = Latencies("a phone", {pair: 3.0}, {pair: 6.0}, {pair: "batch 1"}).evidence(pair)
    >>> found["ratio_to_fp32"], found["measured_on"]
    (0.5, 'a phone, batch 1')
    """

    device: str = ""
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    fp32: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, str] = field(default_factory=dict)

    def evidence(self, pair: str) -> dict[str, float | str]:
        """Return what a record says of a pair; {} where nothing was measured.

        FP32's number is that of the pair where there is one, else that of its model.
        """
        if pair not in self.milliseconds:
            pair = str(Candidate.parse(pair).base)
        if pair not in self.milliseconds:
            return {}
        own = self.milliseconds[pair]
        how = self.measured.get(pair)
        found: dict[str, float | str] = {
            "milliseconds": own,
            "measured_on": f"{self.device}, {how}" if how else self.device,
        }
        reference = str(Candidate.parse(pair).reference)
        fp32 = self.fp32.get(pair, self.milliseconds.get(reference, 0.0))
        if fp32 and pair != reference:
            found |= {"fp32_milliseconds": fp32, "ratio_to_fp32": own / fp32}
        return found


@dataclass(frozen=True, slots=True)
class Measured:
    """The time of one artifact, in milliseconds per image, with FP32's own of the same run.

    >>> Measured(Candidate("b32", "ort-int8"), 3.0, 6.0, "onnxruntime, batch 1, threads 1").fp32
    6.0
    """

    candidate: Candidate
    milliseconds: float
    fp32: float
    how: str


_IMAGE = between(0.0, math.inf, "milliseconds per image,")
_FILE = table(
    "latencies",
    {
        "device": Required[Text],
        "milliseconds": Required[Mapping[str, Annotated[float, _IMAGE]]],
        "fp32": NotRequired[Mapping[str, Annotated[float, _IMAGE]]],
        "measured": NotRequired[Mapping[str, Text]],
    },
)


def load_latencies(path: Path | None, pairs: Collection[str]) -> Latencies:
    """Read a latency file; none is no file.

    Args:
        path: of the file; None where the settings name none.
        pairs: every ``model/quantizer`` of the matrix, artifacts among them, and ``model/fp32``.

    Raises:
        SettingsError: it is missing or malformed, or names a pair that the matrix lacks.
    """
    if path is None:
        return Latencies()
    fix = 'write device = "..." and a table [milliseconds] of "model/quantizer" = 3.1'
    document = Document(path, "TOML", SettingsError, fix)
    found = Latencies(**document.read(_FILE))
    for place, named in (("fp32", found.fp32), ("measured", found.measured)):
        for pair in named:
            if pair not in found.milliseconds:
                known = did_you_mean(pair, found.milliseconds)
                raise document.fail(place, f"{pair!r} has no milliseconds", known)
    for pair in found.milliseconds:
        if pair not in pairs:
            raise document.fail("milliseconds", f"unknown pair {pair!r}", did_you_mean(pair, pairs))
    return found


def check_device(path: Path) -> str:
    """Return what this machine is called in a latency file, where it may be written to.

    Raises:
        SettingsError: the file is malformed, or holds what was measured on another machine.
    """
    here = _machine()
    if path.is_file() and (device := _read(path).device) != here:
        raise SettingsError(
            f"{path} holds what was measured on {device!r}, and this is {here!r}",
            hint="name another file: times of two machines are not to be compared",
        )
    return here


def keep_latencies(path: Path, measured: Sequence[Measured]) -> None:
    """Write what was measured here into a latency file; its other entries are kept.

    FP32's own entry becomes the median of those that were measured beside artifacts of its model.

    Args:
        path: of the file, made where there is none. Comments are not kept.
        measured: artifacts, each with FP32's time of the same run.

    Raises:
        SettingsError: as of `check_device`.
    """
    device = check_device(path)
    before = _read(path) if path.is_file() else Latencies(device)
    tables: dict[str, dict[str, float | str]] = {
        name: dict(held) for name, held in asdict(before).items() if name != "device"
    }
    beside: dict[str, list[float]] = {}
    for one in measured:
        pair = str(one.candidate)
        tables["milliseconds"][pair] = _rounded(one.milliseconds)
        tables["fp32"][pair] = _rounded(one.fp32)
        tables["measured"][pair] = one.how
        beside.setdefault(one.candidate.model, []).append(one.fp32)
    for model, times in beside.items():
        tables["milliseconds"][f"{model}/{FP32}"] = _rounded(statistics.median(times))
    lines = [f"device = {json.dumps(device)}"]
    for name, held in tables.items():
        lines += ["", f"[{name}]"] if held or name == "milliseconds" else []
        lines += [f"{json.dumps(pair)} = {json.dumps(value)}" for pair, value in held.items()]
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _read(path: Path) -> Latencies:
    fix = 'write device = "..." and a table [milliseconds] of "model/quantizer" = 3.1'
    return Latencies(**Document(path, "TOML", SettingsError, fix).read(_FILE))


def _rounded(milliseconds: float) -> float:
    """Return a time with four digits: more is noise."""
    return float(f"{milliseconds:.4g}")


def _machine() -> str:
    """Return what this machine's processor is called."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named and named[0] else platform.processor() or platform.machine()

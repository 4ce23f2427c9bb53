"""Baselines: stored FP32 values and per-sample predictions of one model, reviewed like code.

`<model>.json` is for people: provenance on top, one line per metric. `<model>.safetensors` beside
it holds the per-sample columns; the JSON states its digest. Only `clipq baseline` writes either.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NotRequired, Required

import numpy as np

from clipq.cases import split_key
from clipq.errors import BaselineError
from clipq.evaluation.pooling import Origins, pool
from clipq.evaluation.subject import Facts, Subject
from clipq.evaluation.tables import TableError, read_table, write_table
from clipq.files import write_atomically
from clipq.metrics import Predictions, metrics
from clipq.shapes import Document, Finite, Meta, Text, keys, shown, table

__all__ = [
    "SCHEMA", "Baseline", "BaselineValue", "columns_path", "load_baseline", "save_baseline"
]  # fmt: skip

SCHEMA = "clipq-baseline/2"
_OF_SAMPLES = ("id", "label", "group")
_UNJUDGED = "#"
"""Before the probe in the name of a column that no metric reads; names of probes hold no such."""
_HEAD = ("model", "source", "environment", "noise_from", "identity", "probes", "pooled", "remarks")
_Noise = Annotated[float, Meta(ge=0.0, le=sys.float_info.max, description="a finite number >= 0")]


@dataclass(frozen=True, slots=True)
class BaselineValue:
    """One metric's stored value.

    `first` is what was approved first (for cumulative loss); `noise` >= 0 is the largest difference
    from `value` that FP32 shows under other batch sizes, thread counts and devices.

    >>> stored = load_values(Path("baselines"), "vit-clean")["id.top1"]
    >>> stored.unit, stored.first is not None
    ('fraction', True)
    """

    value: Finite | None
    unit: str
    version: int
    first: Finite | None
    noise: _Noise = 0.0


@dataclass(frozen=True)
class Baseline:
    """The FP32 reference of one model.

    `identity` is what must be equal for a result to be compared: whatever all probes share, and
    per probe its fingerprint; `identity_of` joins both. `values` are keyed
    ``probe.metric``. `predictions` are per probe. `history` lists every approved change.
    `noise_from` names the variations that `noise` was measured over. `pooled` says of which probes
    a pooled one is made: its table is not stored, for it follows from theirs. `remarks` say what a
    reader should know of prompts, captions and the calibration split. `digest` is the stored
    columns' hash, "" before they are saved. `measured_on` and `samples` say in words what the
    hashes are of (`clipq.evaluation.subject`), where the baseline keeps that.

    >>> baseline = load_baseline(Path("baselines"), "vit-clean")
    >>> baseline.source, len(baseline.predictions["id"])
    ('local-dir:fixtures/models/vit-clean', 2048)
    """

    model: str
    source: str
    environment: Mapping[str, str | int]
    identity: Mapping[str, str]
    probes: Mapping[str, str]
    values: Mapping[str, BaselineValue]
    history: tuple[Mapping[str, Any], ...]
    predictions: Mapping[str, Predictions]
    noise_from: tuple[str, ...] = ()
    pooled: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    digest: str = ""
    measured_on: Facts | None = None
    samples: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)

    @property
    def subject(self) -> Subject:
        """What the values were measured on, as far as it was kept."""
        kept = {
            name: {column: table.columns[column] for column in _OF_SAMPLES}
            for name, table in self.predictions.items()
            if set(_OF_SAMPLES) <= set(table.columns)
        }
        for name, columns in self.samples.items():
            kept[name] = kept.get(name, {}) | dict(columns)
        return Subject(self.measured_on, kept)

    def identity_of(self, probe: str) -> dict[str, str]:
        """Return everything that identifies this baseline's results on one probe."""
        return {**self.identity, "probe": self.probes.get(probe, "absent")}


def json_path(folder: Path, model: str) -> Path:
    return folder / f"{model}.json"


def columns_path(folder: Path, model: str) -> Path:
    """Return where the columns of a model's baseline lie.

    >>> columns_path(Path("baselines"), "vit-clean").as_posix()
    'baselines/vit-clean.safetensors'
    """
    return folder / f"{model}.safetensors"


@cache
def _file() -> Any:
    """Return the shape of the JSON."""
    change: Any = {"date": Required[str], "reason": Required[str], "changed": Required[int]}
    change = table("change", change)
    return table(
        "baseline",
        {
            "schema": Required[str],
            **keys(Baseline, *_HEAD),
            "measured_on": NotRequired[Facts],
            "history": Required[tuple[change, ...]],
            "columns_sha256": Required[Text],
            "scalars": Required[Mapping[str, Mapping[str, Finite | None]]],
            "metrics": Required[Mapping[str, BaselineValue]],
        },
    )


def load_values(folder: Path, model: str) -> Mapping[str, BaselineValue] | None:
    """Return a baseline's values without its columns (planning needs no more); None if missing.

    Raises:
        BaselineError: the file is malformed.
    """
    found = _read(folder, model)
    return None if found is None else found["metrics"]


def load_environment(folder: Path, model: str) -> Mapping[str, str | int]:
    """Return the environment a baseline was made in; empty if there is none to read."""
    try:
        found = _read(folder, model)
    except BaselineError:
        return {}
    return {} if found is None else found["environment"]


def load_baseline(folder: Path, model: str) -> Baseline | None:
    """Return a model's baseline, or None where it has none.

    Raises:
        BaselineError: a file is malformed, missing its twin, truncated or was altered.

    >>> print(load_baseline(Path("baselines"), "no-such-model"))
    None
    """
    found = _read(folder, model)
    if found is None:
        return None
    path = columns_path(folder, model)
    try:
        columns, _, digest = read_table(path)
    except TableError as error:
        raise BaselineError(
            f"baseline columns of {model!r}: {error.problem}", hint=_restore(model)
        ) from error
    if digest != found["columns_sha256"]:
        raise BaselineError(
            f"baseline of {model!r} was tampered with: {path} hashes to {digest}, "
            f"{json_path(folder, model)} expects {found['columns_sha256']}",
            hint=_restore(model),
        )
    for key in ("schema", "columns_sha256"):
        del found[key]
    judged, samples = _grouped(columns)
    values, predictions = found.pop("metrics"), _tables(judged, found.pop("scalars"))
    for name, origins in found.get("pooled", {}).items():
        predictions[name] = _pooled(predictions, origins, f"{model}, {name!r}")
    return Baseline(**found, values=values, predictions=predictions, digest=digest, samples=samples)


def save_baseline(folder: Path, baseline: Baseline) -> None:
    """Write both files of a baseline, columns first, each atomically.

    >>> import tempfile
    >>> baseline = load_baseline(Path("baselines"), "vit-clean")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_baseline(Path(folder), baseline)
    ...     load_baseline(Path(folder), "vit-clean").digest == baseline.digest
    True
    """
    columns = {
        f"{probe}/{name}": values
        for probe, predictions in baseline.predictions.items()
        if probe not in baseline.pooled
        for name, values in predictions.columns.items()
    }
    columns |= {
        f"{_UNJUDGED}{probe}/{name}": values
        for probe, samples in baseline.samples.items()
        for name, values in samples.items()
    }
    digest = write_table(columns_path(folder, baseline.model), columns, {"model": baseline.model})
    pooled = {name: dict(origins) for name, origins in baseline.pooled.items()}
    facts = baseline.measured_on
    head = {
        "schema": SCHEMA,
        "model": baseline.model,
        "source": baseline.source,
        "columns_sha256": digest,
        "environment": dict(baseline.environment),
        "noise_from": list(baseline.noise_from),
        "identity": dict(baseline.identity),
        "probes": dict(baseline.probes),
        **({"pooled": pooled} if pooled else {}),
        **({"remarks": list(baseline.remarks)} if baseline.remarks else {}),
        **({"measured_on": asdict(facts)} if facts else {}),
        "scalars": {
            probe: {name: _finite(value) for name, value in sorted(predictions.scalars.items())}
            for probe, predictions in baseline.predictions.items()
            if probe not in pooled
        },
        "history": [dict(entry) for entry in baseline.history],
    }
    text = json.dumps(head, indent=2, allow_nan=False).removesuffix("\n}")
    lines = [
        f"    {json.dumps(name)}: {json.dumps(_line(value), allow_nan=False)}"
        for name, value in sorted(baseline.values.items())
    ]
    body = ",\n".join(lines)
    document = f'{text},\n  "metrics": {{\n{body}\n  }}\n}}\n'
    write_atomically(json_path(folder, baseline.model), document.encode())


def _line(value: BaselineValue) -> dict[str, Any]:
    return {
        "value": _finite(value.value),
        "unit": value.unit,
        "version": value.version,
        "first": _finite(value.first),
        "noise": _finite(value.noise),
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _read(folder: Path, model: str) -> dict[str, Any] | None:
    path = json_path(folder, model)
    if not path.is_file():
        return None
    document = Document(path, "JSON", BaselineError, _restore(model))
    content = document.parse()
    if isinstance(content, dict) and content.get("schema") != SCHEMA:
        was = shown(content.get("schema"))
        raise document.fail("", f"schema {was}", f"this clipq reads {SCHEMA}")
    found: dict[str, Any] = document.shaped(content, _file())
    if found["model"] != model:
        raise document.fail(
            "",
            f"model = {shown(found['model'])}",
            f"model must be {model!r}, as the file is called",
        )
    for key, value in found["metrics"].items():
        _refuse_noise(document, key, value)
    return found


def _refuse_noise(document: Document, key: str, value: BaselineValue) -> None:
    """Refuse a noise that no two values of a metric can differ by."""
    name = split_key(key)[1]
    if name not in metrics:
        return  # nobody's: the case that has it says so
    low, high = metrics.get(name).range
    if value.noise > high - low:
        said = f"values of {name} lie in [{low:g}, {high:g}], and cannot differ by more"
        raise document.fail(f"metrics.{json.dumps(key)}", f"noise = {value.noise:g}", said)


def _grouped(
    columns: Mapping[str, np.ndarray],
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, np.ndarray]]]:
    """Return columns by probe: those of prediction tables, and those that only name samples."""
    judged: dict[str, dict[str, np.ndarray]] = {}
    unjudged: dict[str, dict[str, np.ndarray]] = {}
    for name, values in columns.items():
        probe, _, column = name.partition("/")
        kind = unjudged if probe.startswith(_UNJUDGED) else judged
        kind.setdefault(probe.removeprefix(_UNJUDGED), {})[column] = values
    return judged, unjudged


def _tables(
    judged: Mapping[str, Mapping[str, np.ndarray]],
    scalars: Mapping[str, Mapping[str, float | None]],
) -> dict[str, Predictions]:
    return {
        probe: Predictions(
            found,
            {k: float("inf") if v is None else v for k, v in scalars.get(probe, {}).items()},
        )
        for probe, found in judged.items()
    }


def _pooled(stored: Mapping[str, Predictions], origins: Origins, where: str) -> Predictions:
    """Return the table of a pooled probe, made of its members' stored ones."""
    if not origins or (missing := [name for name in origins if name not in stored]):
        raise BaselineError(
            f"baseline of {where}: it pools {', '.join(missing) if origins else 'nothing'}, of "
            "which there are no columns",
            hint=_restore(where.partition(",")[0]),
        )
    return pool({name: stored[name] for name in origins}, origins)


def _restore(model: str) -> str:
    return (
        "restore the file from version control, or approve a new baseline: "
        f"clipq baseline update {model} --reason '...'"
    )

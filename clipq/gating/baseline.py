"""Baselines: stored FP32 values and per-sample predictions of one model, reviewed like code.

`<model>.json` is for people: provenance on top, one line per metric. `<model>.safetensors` beside
it holds the per-sample columns; the JSON states its digest. Only `clipq baseline` writes either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipq.errors import BaselineError
from clipq.evaluation.tables import TableError, read_table, write_table
from clipq.files import write_atomically
from clipq.metrics import Predictions

__all__ = ["SCHEMA", "Baseline", "BaselineValue", "load_baseline", "save_baseline"]

SCHEMA = "clipq-baseline/2"
_READABLE = (SCHEMA, "clipq-baseline/1")  # 1 has no noise: it can be read, to be updated


@dataclass(frozen=True, slots=True)
class BaselineValue:
    """One metric's stored value.

    `first` is what was approved first (for cumulative drift); `noise` is the largest difference
    from `value` that FP32 shows under other batch sizes, thread counts and devices.
    """

    value: float | None
    unit: str
    version: int
    first: float | None
    noise: float = 0.0


@dataclass(frozen=True)
class Baseline:
    """The FP32 reference of one model.

    `identity` is what must be equal for a result to be compared: whatever all probes share, and
    per probe its fingerprint; `identity_of` joins both. `values` are keyed
    ``probe.metric``. `predictions` are per probe. `history` lists every approved change.
    `noise_from` names the variations that `noise` was measured over. `digest` is the stored
    columns' hash, "" before they are saved.
    """

    model: str
    source: str
    environment: Mapping[str, Any]
    identity: Mapping[str, str]
    probes: Mapping[str, str]
    values: Mapping[str, BaselineValue]
    history: tuple[Mapping[str, Any], ...]
    predictions: Mapping[str, Predictions]
    noise_from: tuple[str, ...] = ()
    digest: str = ""

    def identity_of(self, probe: str) -> dict[str, str]:
        """Return everything that identifies this baseline's results on one probe."""
        return {**self.identity, "probe": self.probes.get(probe, "absent")}


def json_path(folder: Path, model: str) -> Path:
    return folder / f"{model}.json"


def columns_path(folder: Path, model: str) -> Path:
    return folder / f"{model}.safetensors"


def load_values(folder: Path, model: str) -> dict[str, BaselineValue] | None:
    """Return a baseline's values without its columns (planning needs no more); None if missing.

    Raises:
        BaselineError: the file is malformed.
    """
    document = _read_document(folder, model)
    return None if document is None else _values(document)


def load_environment(folder: Path, model: str) -> Mapping[str, Any]:
    """Return the environment a baseline was made in; empty if there is none to read."""
    try:
        document = _read_document(folder, model)
    except BaselineError:
        return {}
    return {} if document is None else document.get("environment", {})


def load_baseline(folder: Path, model: str) -> Baseline | None:
    """Return a model's baseline, or None where it has none.

    Raises:
        BaselineError: a file is malformed, missing its twin, truncated or was altered.
    """
    document = _read_document(folder, model)
    if document is None:
        return None
    path = columns_path(folder, model)
    try:
        columns, _, digest = read_table(path)
    except TableError as error:
        raise BaselineError(
            f"baseline columns of {model!r}: {error.problem}", hint=_restore(model)
        ) from error
    if digest != document["columns_sha256"]:
        raise BaselineError(
            f"baseline of {model!r} was tampered with: {path} hashes to {digest}, "
            f"{json_path(folder, model)} expects {document['columns_sha256']}",
            hint=_restore(model),
        )
    try:
        return Baseline(
            model=document["model"],
            source=document["source"],
            environment=document["environment"],
            identity=document["identity"],
            probes=document["probes"],
            values=_values(document),
            history=tuple(document["history"]),
            predictions=_split(columns, document["scalars"]),
            noise_from=tuple(document.get("noise_from", ())),
            digest=digest,
        )
    except (KeyError, TypeError) as error:
        raise _malformed(folder, model, error) from error


def save_baseline(folder: Path, baseline: Baseline) -> None:
    """Write both files of a baseline, columns first, each atomically."""
    columns = {
        f"{probe}/{name}": values
        for probe, predictions in baseline.predictions.items()
        for name, values in predictions.columns.items()
    }
    digest = write_table(columns_path(folder, baseline.model), columns, {"model": baseline.model})
    head = {
        "schema": SCHEMA,
        "model": baseline.model,
        "source": baseline.source,
        "columns_sha256": digest,
        "environment": dict(baseline.environment),
        "noise_from": list(baseline.noise_from),
        "identity": dict(baseline.identity),
        "probes": dict(baseline.probes),
        "scalars": {
            probe: {name: _finite(value) for name, value in sorted(predictions.scalars.items())}
            for probe, predictions in baseline.predictions.items()
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


def _read_document(folder: Path, model: str) -> dict[str, Any] | None:
    path = json_path(folder, model)
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _malformed(folder, model, error) from error
    if not isinstance(document, dict) or document.get("schema") not in _READABLE:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise BaselineError(
            f"{path} is of schema {found!r}", hint=f"this clipq reads {SCHEMA}; {_restore(model)}"
        )
    return document


def _values(document: Mapping[str, Any]) -> dict[str, BaselineValue]:
    try:
        return {name: BaselineValue(**entry) for name, entry in document["metrics"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise BaselineError(
            f"baseline of {document.get('model')!r} is malformed: {error!r}",
            hint=_restore(str(document.get("model"))),
        ) from error


def _split(
    columns: Mapping[str, np.ndarray], scalars: Mapping[str, Mapping[str, float | None]]
) -> dict[str, Predictions]:
    grouped: dict[str, dict[str, np.ndarray]] = {}
    for name, values in columns.items():
        probe, _, column = name.partition("/")
        grouped.setdefault(probe, {})[column] = values
    return {
        probe: Predictions(
            found,
            {k: float("inf") if v is None else v for k, v in scalars.get(probe, {}).items()},
        )
        for probe, found in grouped.items()
    }


def _malformed(folder: Path, model: str, error: Exception) -> BaselineError:
    return BaselineError(
        f"{json_path(folder, model)} is malformed: {error!r}", hint=_restore(model)
    )


def _restore(model: str) -> str:
    return (
        "restore the file from version control, or approve a new baseline: "
        f"clipq baseline update {model} --reason '...'"
    )

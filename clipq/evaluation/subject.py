"""What a result was measured on, in words and per sample.

Hashes tell that two results are not of the same thing (`clipq.evaluation.identity`); nobody can
tell from a hash what is different. A baseline keeps this beside them, in a few bytes per sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np

from clipq.evaluation.inputs import Inputs
from clipq.provenance import digest
from clipq.settings import ProbeSettings
from clipq.shapes import Finite

if TYPE_CHECKING:
    from clipq.data import Probe
    from clipq.models import LoadedModel

__all__ = ["Facts", "Subject", "subject_of"]

_NO_MATTER = ("name", "metrics", "reason", "probes", "use", "distance", "unreadable")
"""Settings of a probe that do not change what its samples are."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is put to a model: its prompts, its logit map, and per probe how it is declared.

    >>> facts = Facts(("cat", "dog"), ("a photo of a {c}",), 100.0, 0.0, {"id": {"split": "test"}})
    >>> facts.own_classes  # of probes whose classes are not the head's
    {}
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    logit_scale: Finite
    logit_bias: Finite
    probes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    own_classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What a result was measured on.

    `samples` holds columns (N,) per probe, of which a stored subject may lack some: ``id``,
    ``label``, ``group``, ``image`` (31 bits of the hash of its bytes) and ``caption`` (likewise).
    `facts` is None where none were kept.

    >>> Subject(None, {"id": {"id": np.array(["a.png"])}}).samples["id"]["id"].tolist()
    ['a.png']
    """

    facts: Facts | None
    samples: Mapping[str, Mapping[str, np.ndarray]]


def subject_of(inputs: Inputs, loaded: LoadedModel) -> Subject:
    """Return what results of a model are measured on here and now."""
    settings, known = inputs.settings, inputs.known
    facts = Facts(
        known.classnames,
        known.templates,
        float(loaded.logit_scale),
        float(loaded.logit_bias),
        {name: _declared(settings.probe(name)) for name in inputs.probes},
        {
            name: probe.classnames
            for name, probe in inputs.probes.items()
            if probe.role not in ("ood", "retrieval") and probe.classnames != known.classnames
        },
    )
    return Subject(facts, {name: _columns(probe) for name, probe in inputs.probes.items()})


def _declared(probe: ProbeSettings) -> dict[str, str]:
    """Return what a probe's table says of its samples, but for what it leaves out."""
    plain = asdict(probe)
    return {
        key.name: str(plain[key.name])
        for key in fields(probe)
        if key.name not in _NO_MATTER and plain[key.name] not in ("", 0, None)
    }


def _columns(probe: Probe) -> dict[str, np.ndarray]:
    columns = {
        "id": np.asarray(probe.ids, np.str_),
        "label": probe.labels.astype(np.int64),
        "group": np.asarray(probe.groups, np.str_),
        "image": np.array([_bits(image) for image in probe.sample_hashes], np.int64),
    }
    if probe.role == "retrieval" and probe.captions is not None:
        columns["caption"] = np.array([_bits(digest(text)) for text in probe.captions], np.int64)
    return columns


def _bits(hexadecimal: str) -> int:
    return int(hexadecimal[:8], 16) >> 1  # fits four bytes with a sign

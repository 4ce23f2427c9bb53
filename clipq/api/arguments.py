"""What callers pass as model and as data, as the evaluation takes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from clipq.data import (
    Images,
    Probe,
    check_passed_over,
    hashed_order,
    probe_from_images,
    taken,
)
from clipq.data import open_probe as open_any_probe
from clipq.data.probe import CAPTIONED
from clipq.errors import ModelError, ProbeError
from clipq.settings import MOST_PASSED_OVER

if TYPE_CHECKING:
    from torch import nn

    from clipq.models import LoadedModel

__all__ = [
    "Data",
    "Model",
    "as_model",
    "as_pairs",
    "as_probe",
    "hold_out",
    "open_probe",
    "pixels_of",
]

Data = Union[str, Images, Probe]  # noqa: UP007 - documented by name
"""``KIND:LOCATION`` of a probe source, images in memory, or a probe that is open already."""
Model = Union[str, "nn.Module"]
"""An open_clip source (``ARCH/TAG``, ``hf-hub:ORG/NAME``, ``local-dir:PATH``) or a module."""

_HELD_OUT = 5
"""One sample in so many is held out for calibration where no split is given."""
_MOST_HELD_OUT = 512


def open_probe(
    source: str,
    *,
    split: str = "test",
    group: str = "",
    role: str = "in-distribution",
    cluster: str = "",
    cache: Path | None = None,
) -> Probe:
    """Open a labelled evaluation set.

    Args:
        source: ``KIND:LOCATION``, relative to the working directory: ``folder:PATH``,
            ``webdataset:PATH``, ``imagelist:FILE``, ``huggingface:NAME``, ``torchvision:NAME``,
            ``made:FILE.py:FUNCTION``, or a kind that somebody registered.
        split: which split of it; ``.`` for a folder without splits.
        group: attribute that divides the samples, for metrics between groups.
        role: ``ood`` for images whose classes are not those of the zero-shot head.
        cluster: attribute that says which samples belong together (patients, videos): they err
            together, so that intervals count clusters and not samples.
        cache: folder in which what ``made:FILE.py:FUNCTION`` writes is kept; by default
            ``.clipq/cache`` in the working directory.

    Raises:
        ProbeError: data are missing, damaged, empty or mislabelled, or more than 1 % of the files
            may be pictures and are not read.

    >>> probe = open_probe("webdataset:fixtures/data/shapes", split="calibration")
    >>> len(probe), probe.classnames[:3]
    (512, ('circle', 'square', 'triangle'))
    """
    probe = open_any_probe(
        name=source,
        role=role,
        source=source,
        split=split,
        base_dir=Path.cwd(),
        group=group,
        cluster=cluster,
        cache=cache,
    )
    check_passed_over(probe, most=MOST_PASSED_OVER)
    return probe


def as_probe(data: Data, *, name: str, role: str) -> Probe:
    """Return data of any kind as a probe with a name and a role.

    Raises:
        ProbeError: it cannot be opened, or is something else.

    >>> as_probe("webdataset:fixtures/data/digits", name="digits", role="ood").role
    'ood'
    """
    if isinstance(data, Images):
        return probe_from_images(data, name=name, role=role)
    if isinstance(data, str):
        data = open_probe(data, role=role)
    if not isinstance(data, Probe):
        raise ProbeError(
            f"data of type {type(data).__name__}",
            hint="pass 'KIND:LOCATION' of a probe source, clipq.Images(images, labels, "
            "classnames), or what clipq.open_probe returns",
        )
    unlabelled = role == "ood" or role in CAPTIONED
    labels = np.full(len(data), -1, np.int64) if unlabelled else data.labels
    return replace(data, name=name, role=role, labels=labels)


def as_pairs(data: Data, *, name: str, captions: Sequence[str] = ()) -> Probe:
    """Return images with captions as pairs that something can be learnt from.

    Args:
        data: whose captions are those of its source, where `captions` gives none; of the text of a
            source, the split ``train``.
        name: what messages call the pairs.
        captions: of each image; several of one are lines.

    Raises:
        ProbeError: there are no captions, not as many as images, or one pair alone.

    >>> opened = open_probe("webdataset:fixtures/data/captions", role="proxy")
    >>> pairs = as_pairs(opened, name="proxy")
    >>> len(pairs), pairs.role, len(pairs.captions)
    (256, 'proxy', 256)
    """
    from clipq.evaluation.inputs import caption_lines
    from clipq.evaluation.proxy_pairs import check_pairs

    if isinstance(data, str):
        data = open_probe(data, split="train", role="proxy")
    probe = replace(as_probe(data, name=name, role="ood"), role="proxy")  # labels are not needed
    if captions:
        if len(captions) != len(probe):
            raise ProbeError(
                f"{len(captions):,} captions of {len(probe):,} images",
                hint="give one text for each image; several captions are lines of it",
            )
        probe = replace(probe, captions=tuple(captions))
    if probe.captions is None:
        raise ProbeError(
            f"the images of {name!r} have no captions",
            hint="pass captions=[...], or open a source that has them: "
            "clipq.open_probe('webdataset:FOLDER', split='train', role='proxy')",
        )
    check_pairs(probe, *caption_lines(probe.captions))
    return probe


def pixels_of(probe: Probe, loaded: LoadedModel) -> np.ndarray:
    """Return a probe's images (N, H, W, 3), uint8, as a model takes them."""
    return np.stack([loaded.preprocess.to_uint8(image) for image in probe.images()])


def hold_out(probe: Probe) -> tuple[Probe, Probe]:
    """Return a probe in two disjoint parts: what is evaluated, and a calibration split.

    A fifth of the samples, at most 512, chosen by the hashes of their ids: the same ones in every
    call. Equal images go to the same side, and so do the samples of a cluster.

    Raises:
        ProbeError: there are too few samples to spare any.

    >>> from clipq.data import Images
    >>> pictures = np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    >>> probe = as_probe(Images(pictures), name="grey", role="ood")
    >>> kept, held_out = hold_out(probe)
    >>> len(kept), held_out.ids
    (8, ('8', '9'))
    """
    count = min(len(probe) // _HELD_OUT, _MOST_HELD_OUT)
    if count < 1:
        raise ProbeError(
            f"{len(probe)} samples leave none for calibration",
            hint=f"pass calibration=..., disjoint from them, or at least {_HELD_OUT} samples",
        )
    held = _belonging_together(probe, _first(probe, count))
    kept = [position for position in range(len(probe)) if position not in held]
    if not kept:
        what = "one image" if probe.clusters is None else "one cluster"
        raise ProbeError(f"all {len(probe)} samples are {what}", hint="give samples that differ")
    calibration = replace(taken(probe, sorted(held)), name="calibration", role="calibration")
    return taken(probe, kept), calibration


def _first(probe: Probe, count: int) -> set[int]:
    """Return the first samples by the hashes of their ids; of clusters, whole ones, as many."""
    order = hashed_order(probe)
    if probe.clusters is None:
        return set(order[:count])
    sizes, chosen, held = Counter(probe.clusters), set[str](), 0
    for position in order:
        cluster = probe.clusters[position]
        if held < count and cluster not in chosen:
            chosen.add(cluster)
            held += sizes[cluster]
    return {position for position in order if probe.clusters[position] in chosen}


def _belonging_together(probe: Probe, chosen: set[int]) -> set[int]:
    """Return samples with all that share an image or a cluster with one of them."""
    marks: list[tuple[str, ...]] = [probe.sample_hashes]
    if probe.clusters is not None:
        marks.append(probe.clusters)
    size = 0
    while size < len(chosen):
        size = len(chosen)
        for mark in marks:
            wanted = {mark[position] for position in chosen}
            chosen = {position for position, value in enumerate(mark) if value in wanted}
    return chosen


def as_model(
    model: Model, *, tokenizer: Callable[[list[str]], Any] | None = None, device: str = "cpu"
) -> LoadedModel:
    """Return a model of any kind as the evaluation takes it.

    Raises:
        ModelError: it cannot be loaded, or is something else.
    """
    from torch import nn

    from clipq.models import ModelSource, load_model, model_in_memory

    if isinstance(model, str):
        return load_model(ModelSource.parse(model, base_dir=Path.cwd()), device=device)
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"a model of type {type(model).__name__}",
            hint="pass an open_clip module, or the text of a source such as "
            "'ViT-B-32/laion2b_s34b_b79k'",
        )
    return model_in_memory(model, tokenizer=tokenizer, device=device)

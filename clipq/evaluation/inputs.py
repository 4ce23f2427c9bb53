"""What goes into an encoder: opened probes, preprocessed images, prompts and captions.

Everything here depends on data and preprocessing alone, never on a quantizer.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from clipq.data import (
    Probe,
    check_disjoint,
    head_columns,
    open_declared,
    unreadable_images,
    without,
)
from clipq.data.decoding import PIXELS_VERSION
from clipq.data.probe import hashed_order
from clipq.errors import ProbeError, SettingsError
from clipq.evaluation.cache import Cache, Table
from clipq.evaluation.decoded_images import DECODERS, DecodedImages
from clipq.evaluation.known_labels import KnownLabels, known_labels
from clipq.evaluation.pooling import Origins, check_apart
from clipq.evaluation.predict import SampleInfo
from clipq.evaluation.proxy_pairs import Pairs, check_not_evaluated, check_pairs, undeclared
from clipq.provenance import digest, package_versions
from clipq.settings import ProbeSettings, Settings

if TYPE_CHECKING:
    from clipq.models import Preprocess

__all__ = ["Inputs", "caption_lines"]


class Inputs:
    """The probes of the settings, opened once, their images decoded once per preprocessing.

    Args:
        settings: which probes.
        cache: where decoded images are kept.
        progress: called with (what, images done, images in all) while images are decoded.
        opened: probes that are open already, by name.
    """

    def __init__(
        self,
        settings: Settings,
        cache: Cache,
        *,
        progress: Callable[[str, int, int], None] | None = None,
        opened: Mapping[str, Probe] | None = None,
    ) -> None:
        self.settings = settings
        self.cache = cache
        self._progress = progress
        self._decoded = DecodedImages(cache, progress=progress)
        self._given = dict(opened or {})
        self._read: dict[tuple[str, ...], Probe] = {}
        self._draw = 0, 0

    def drawn(self, samples: int, seed: int) -> Inputs:
        """Return the same inputs, of whose calibration split quantizers see a part.

        Temperatures and known features keep the whole split, so that results stay comparable with a
        baseline. Quantizers see `samples` of it, 0 for all; with `seed` 0 those that a probe of so
        many samples has.
        """
        other = copy.copy(self)
        for name in ("calibration_positions", "quantizers_fingerprint"):
            vars(other).pop(name, None)
        other._draw = samples, seed
        return other

    @cached_property
    def probes(self) -> dict[str, Probe]:
        """Every probe with images that may be seen, opened, verified and checked for leakage.

        Those kept for releases are left out under any other policy; a pooled one has no images, and
        those of a proxy are looked at where something is trained: `proxy`.

        Raises:
            ProbeError: data are missing, damaged or shared between probes that must be apart.
        """
        unseen = {probe.name for probe in self.settings.withheld}
        opened = {
            probe.name: self._opened(probe)
            for probe in self.settings.probes
            if probe.role not in ("pooled", "proxy") and probe.name not in unseen
        }
        calibration = opened.pop(self.settings.calibration.name)
        check_disjoint(calibration, *opened.values())
        known = opened[self.settings.in_distribution.name]
        check_disjoint(known, *(probe for probe in opened.values() if probe.role == "ood"))
        known_labels(calibration, known)  # what does not fit is said before anything is encoded
        return _Opened(opened | {calibration.name: calibration})

    @property
    def known(self) -> Probe:
        """The in-distribution probe, whose classes make the zero-shot head."""
        return self.probes[self.settings.in_distribution.name]

    @property
    def calibration(self) -> Probe:
        """The calibration split."""
        return self.probes[self.settings.calibration.name]

    @cached_property
    def known_labels(self) -> KnownLabels:
        """Labels of the calibration split, in the classes of the zero-shot head."""
        return known_labels(self.calibration, self.known)

    @cached_property
    def calibration_fingerprint(self) -> str:
        """What identifies the calibration split: samples, captions and, where other, classes."""
        split = self.calibration
        same = split.classnames == self.known.classnames and split.class_map is None
        own = () if same else (split.classnames, split.class_map)
        return digest([split.fingerprint, split.captions, *own])

    @cached_property
    def calibration_positions(self) -> tuple[int, ...] | None:
        """Which samples of the calibration split quantizers see; None for all.

        Raises:
            ProbeError: the split has not so many.
        """
        return _drawn(self.calibration, *self._draw)

    @cached_property
    def quantizers_fingerprint(self) -> str:
        """What identifies the part of the calibration split that quantizers see."""
        seen = self.calibration_positions
        whole = self.calibration_fingerprint
        return whole if seen is None else digest([whole, seen])

    @cached_property
    def proxy(self) -> Probe:
        """The pairs to train on, opened when they are first asked for.

        Those that the settings declare; else the calibration split, where it has captions.

        Raises:
            ProbeError: there is nothing to be learnt from them, or they share an image with a
                probe that is evaluated.
            SettingsError: there are none.
        """
        declared = self.settings.proxy
        found = self.calibration if declared is None else self._opened(declared)
        if found.captions is None:
            raise undeclared(found, self.settings.path)
        check_pairs(found, *caption_lines(found.captions))

        def tell(done: int) -> None:
            if self._progress is not None:
                self._progress(f"comparing {found.name} with what is evaluated", done, len(found))

        check_not_evaluated(found, self._evaluated(), self.cache, tell=tell)
        return found

    @cached_property
    def proxy_fingerprint(self) -> str:
        """What identifies the pairs to train on: samples and captions."""
        return digest([self.proxy.fingerprint, self.proxy.captions])

    def pairs(self, preprocess: Preprocess) -> Pairs:
        """Return the pairs to train on, their images decoded once per preprocessing.

        Raises:
            ProbeError, SettingsError: as `proxy`; or an image does not decode.
        """
        probe = self.proxy
        lines, owners = caption_lines(probe.captions or ())
        images = self.images(probe.name, preprocess)
        return Pairs(images, tuple(lines), owners, probe.ids, self.proxy_fingerprint)

    def _evaluated(self) -> list[Probe]:
        """Return the probes with images that are evaluated, those kept for releases among them."""
        apart = self.settings.calibration.name
        found = [probe for name, probe in self.probes.items() if name != apart]
        for declared in self.settings.withheld:
            with suppress(ProbeError):  # where it is not here, its release finds what is shared
                if declared.role != "pooled":
                    found.append(self._opened(declared))
        return found

    @property
    def calibration_prompts(self) -> Probe:
        """The split with the head's classes: what its prompts are made of.

        Whichever classes the split shows, a quantized text tower is asked for all of them.
        """
        return replace(self.calibration, classnames=self.known.classnames)

    @cached_property
    def pooled(self) -> dict[str, Origins]:
        """Of each pooled probe, its members, and which of them share their images.

        Raises:
            ProbeError: members share an image that they do not read from one place.
        """
        unseen = {probe.name for probe in self.settings.withheld}
        names = [one.name for one in self.settings.probes_of("pooled") if one.name not in unseen]
        return {name: self._origins(name) for name in names}

    def images(self, probe: str, preprocess: Preprocess, *, first: int | None = None) -> np.ndarray:
        """Return a probe's preprocessed images (N, H, W, 3), decoded once per preprocessing.

        Args:
            probe: its name.
            preprocess: what makes pixels of its images.
            first: how many are wanted, where not all are.
        """
        return self._decoded.images(self.opened(probe), preprocess, first=first)

    def blocks(self, probe: str, preprocess: Preprocess, size: int) -> Iterator[np.ndarray]:
        """Yield the same images in blocks (<= size, H, W, 3).

        Where they are not decoded yet, they are while the blocks are used: an encoder and the
        decoder then work side by side. Where some turn out to be damaged, all are decoded again.
        """
        return self._decoded.blocks(self.opened(probe), preprocess, size)

    def opened(self, name: str) -> Probe:
        """Return a probe with images, be it what is evaluated or pairs to train on."""
        declared = self.settings.proxy
        return self.probes[name] if declared is None or name != declared.name else self.proxy

    def sample_info(self, probe: str, first: int | None = None) -> SampleInfo:
        """Return what a probe knows of its samples, of the first ones only where told so."""
        opened = self.probes[probe]
        owners = None
        if opened.role == "retrieval" and opened.captions is not None:
            _, owners = caption_lines(opened.captions)
        labelled = opened.role not in ("ood", "retrieval")
        return SampleInfo(
            opened.ids[:first],
            opened.labels[:first],
            opened.groups[:first],
            None if opened.clusters is None else opened.clusters[:first],
            self._columns(opened) if labelled else None,
            owners,
        )

    def _columns(self, probe: Probe) -> tuple[tuple[int, ...], ...] | None:
        return head_columns(probe.name, probe.classnames, probe.class_map, self.known.classnames)

    def _origins(self, pooled: str) -> Origins:
        members = self.settings.members(pooled)
        first: dict[tuple[str, ...], str] = {}
        origins = {}
        for member in members:
            given = member.name in self._given
            place = (member.name,) if given else (member.source, member.split)
            origins[member.name] = first.setdefault(place, member.name)
        check_apart([self.probes[member.name] for member in members], origins)
        return origins

    def _opened(self, declared: ProbeSettings) -> Probe:
        """Open a probe; where some images may be unreadable, find out which, once."""
        if declared.name in self._given:
            return self._given[declared.name]
        probe = open_declared(
            declared,
            base_dir=self.settings.root,
            opened=self._read,
            cache=self.settings.cache,
            progress=self._progress,
        )
        if probe.passed_over.pictures:
            warnings.warn(f"probe {probe.name!r}: {probe.passed_over}", stacklevel=2)
        if not declared.unreadable:
            return probe

        def create() -> Table:
            found = unreadable_images(probe)
            positions = np.array([position for position, _ in found], np.int64)
            return {"positions": positions}, {"reasons": [reason for _, reason in found]}

        decoder = [PIXELS_VERSION, package_versions(DECODERS)]
        key = digest({"probe": probe.fingerprint, "decoder": decoder})
        columns, metadata = self.cache.table("unreadable", key, create)
        broken = list(zip(columns["positions"].tolist(), metadata["reasons"], strict=True))
        return without(probe, broken, most=declared.unreadable)


class _Opened(dict[str, Probe]):
    def __missing__(self, name: str) -> Probe:
        raise SettingsError(
            f"probe {name!r} has no images to look at",
            hint="a pooled probe has none of its own, one with use = 'release' is seen under "
            "policy release alone, and those of a proxy are trained on and never evaluated on",
        )


def caption_lines(captions: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return every caption (M) and whose it is (M,); an image's captions are one a line."""
    lines, owners = [], []
    for owner, text in enumerate(captions):
        for line in text.splitlines():
            if line.strip():
                lines.append(line.strip())
                owners.append(owner)
    return lines, np.array(owners, dtype=np.int64)


def _drawn(split: Probe, samples: int, seed: int) -> tuple[int, ...] | None:
    if samples > len(split):
        raise ProbeError(
            f"probe {split.name!r} holds {len(split)} samples, a quantizer is to see {samples}",
            hint=f"give it at most {len(split)}, or 0 for all",
        )
    if samples in (0, len(split)):
        return None
    return tuple(sorted(hashed_order(split, draw=seed)[:samples]))

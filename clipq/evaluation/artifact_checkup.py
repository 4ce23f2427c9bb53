"""What is found out of one artifact before any metric is judged, step by step.

What its files say of themselves comes first, without running them; then how its runtime opens them;
then how near its features are to FP32's, whether they depend on the batch, and how long they take.
A step that fails ends the checkup of this artifact, and what was found before is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from clipq.artifact_settings import BROUGHT, PIXELS
from clipq.cases import Candidate
from clipq.data import Probe, hashed_order, open_declared, taken
from clipq.errors import ClipqError
from clipq.evaluation.artifact_parity import TowerParity, compare, parity_finding
from clipq.evaluation.artifact_speed import Speed, side_by_side
from clipq.evaluation.batch_dependence import (
    BatchDifference,
    arrange,
    batch_differences,
    batch_findings,
)
from clipq.evaluation.evaluator import Evaluator
from clipq.provenance import package_versions
from clipq.runtimes import Finding, Look, TowerFacts, runtimes
from clipq.runtimes.float_share import float_share_findings
from clipq.runtimes.precision import precision_findings
from clipq.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import nn

    from clipq.evaluation.artifact_module import ArtifactModule
    from clipq.models import LoadedModel

__all__ = ["IMAGES", "PROMPTS", "STEPS", "Checkup", "Examiner"]

IMAGES = 64
"""Images of the in-distribution probe that are shown."""
PROMPTS = 256
"""Class prompts at most: one a class, by the first template."""
STEPS = ("lint", "opening", "parity", "batch", "time")
_ARRANGED = 32
_SHOWN = {"image": "images", "text": "class prompts"}


@dataclass(slots=True)
class Checkup:
    """What was found out of one artifact.

    Args:
        candidate: which.
        done: of `STEPS`, those that were made.
        versions: of the runtime's packages.
        looks: what each tower's file says of itself.
        facts: what the runtime says of each tower that it opened.
        parity: how near its features are to FP32's.
        batches: how far they move with the batch, by what is encoded.
        speeds: how long it takes, by tower.
        bytes: of its files; 0 where they do not hold what ships.
        fp32_bytes: of the FP32 towers in whose place they stand.
        findings: what is wrong, or worth knowing.
        error: why it could not be looked at further.

    >>> Checkup(Candidate("vit-clean", "ort-int8"), findings=[Finding("scale", "inf")]).wrong
    True
    """

    candidate: Candidate
    done: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    looks: dict[str, Look] = field(default_factory=dict)
    facts: dict[str, TowerFacts] = field(default_factory=dict)
    parity: tuple[TowerParity, ...] = ()
    batches: dict[str, tuple[BatchDifference, ...]] = field(default_factory=dict)
    speeds: dict[str, Speed] = field(default_factory=dict)
    bytes: int = 0
    fp32_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    error: ClipqError | None = None

    @property
    def wrong(self) -> bool:
        """Whether something cannot be meant: it is not what is to ship."""
        found = any(each.wrong for each in self.findings)
        return self.error is not None or found


class Examiner:
    """Examines artifacts of some settings, each in the process of its runtime.

    Args:
        settings: with the artifacts; of their probes the in-distribution one is shown.

    >>> from pathlib import Path
    >>> from clipq.settings import load_settings
    >>> Examiner(load_settings(Path("clipq.toml"))).threads(Candidate("vit-clean", "fp32"))
    1
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        evaluator = Evaluator(settings)
        self._encoders = evaluator.encoders
        self._shown: dict[str, Shown] = {}

    def threads(self, candidate: Candidate) -> int:
        """Return how many threads an artifact runs in."""
        artifact = self.settings.artifact(candidate)
        return (artifact.session.threads if artifact else 0) or self.settings.threads

    def examine(self, candidate: Candidate, *, timed: bool = True) -> Iterator[tuple[str, Checkup]]:
        """Yield each step's name when it is done, and what is known by then.

        Args:
            candidate: an artifact of the settings.
            timed: whether its time is measured.
        """
        found = Checkup(candidate)
        steps = (self._lint, self._open, self._compare, self._arrange, self._time)
        for name, step in zip(STEPS, steps, strict=True):
            if name == "time" and not timed:
                continue
            try:
                step(found)
            except ClipqError as error:
                found.error = error
                yield name, found
                return
            found.done.append(name)
            yield name, found

    def close(self) -> None:
        """Let go of the process that is open."""
        self._encoders.artifacts.give_up()

    # -- steps ---------------------------------------------------------------------------------

    def _lint(self, found: Checkup) -> None:
        artifacts = self._encoders.artifacts
        found.looks = dict(artifacts.looks(found.candidate))
        artifact = self.settings.artifact(found.candidate)
        if artifact is not None and artifact.is_stored:
            found.bytes = artifacts.files(found.candidate).bytes
        packages = runtimes.get(artifact.runtime).packages if artifact else ()
        found.versions = dict(package_versions(packages))
        for tower, look in found.looks.items():
            found.findings += [each.of_tower(tower) for each in look.findings]

    def _open(self, found: Checkup) -> None:
        found.facts = dict(self._module(found).facts)
        artifact = self.settings.artifact(found.candidate)
        asked = artifact.session.precision if artifact else ""
        for tower, facts in found.facts.items():
            opened = (*precision_findings(asked, facts), *float_share_findings(facts))
            found.findings += [each.of_tower(tower) for each in opened]
        model: Any = self._reference(found).loaded.model
        found.fp32_bytes = sum(_bytes(model, tower) for tower in found.facts)

    def _compare(self, found: Checkup) -> None:
        module, shown = self._module(found), self._reference(found)
        made = {
            tower: _features(module, tower, shown.inputs[tower], module.batch)
            for tower in found.facts
        }
        fp32 = shown.features
        id_probe = self.settings.in_distribution.name
        if (brought := self._encoders.artifacts.rows(found.candidate.on(id_probe))) is not None:
            made = {"image": brought[self._positions]} | made
        if (head := module.class_embeddings(self._probe.classnames)) is not None:
            made["text"], fp32 = head[shown.classes], fp32 | {"text": shown.embeddings}
        found.parity = compare(made, fp32, normalised=module.io.output == "normalised")
        for parity in found.parity:
            if parity.tower != "both" and parity.verdict != "sound":
                found.findings.append(parity_finding(parity, self._mended(found, parity.tower)))

    def _arrange(self, found: Checkup) -> None:
        module, shown = self._module(found), self._reference(found)
        arranged = {}
        for tower in found.facts:
            inputs = shown.inputs[tower][:_ARRANGED]
            artifact, fp32 = (
                arrange(
                    partial(_picked, model, tower, inputs),
                    _features(model, tower, inputs, module.batch),
                )
                for model in (module, shown.loaded.model)
            )
            if np.isfinite(artifact["together"]).all():  # what is not, parity has said
                arranged[_SHOWN[tower]] = artifact, fp32
        found.batches = {of: batch_differences(*both) for of, both in arranged.items()}
        found.findings += batch_findings(arranged, module.batch)

    def _time(self, found: Checkup) -> None:
        import torch

        declared = self.settings.artifact(found.candidate)
        if declared is not None and declared.runtime == BROUGHT:
            return  # to look a row up takes no tower's time
        module, shown = self._module(found), self._reference(found)
        threads = self.threads(found.candidate)
        torch.set_num_threads(threads)
        for tower, facts in found.facts.items():
            size = facts.batch or module.batch
            inputs = _repeated(shown.inputs[tower], size)
            artifact, fp32 = side_by_side(
                partial(module.seconds, tower, inputs),
                partial(_seconds, shown.loaded.model, tower, inputs),
            )
            found.speeds[tower] = Speed(tower, size, threads, artifact, fp32)
        self._encoders.pin()

    # -- what they share -----------------------------------------------------------------------

    def _module(self, found: Checkup) -> ArtifactModule:
        return self._encoders.artifacts.module(found.candidate)

    def _reference(self, found: Checkup) -> Shown:
        name = found.candidate.model
        if name not in self._shown:
            self._encoders.pin()
            loaded, device = self._encoders.model(name), self._encoders.device
            self._shown[name] = Shown(loaded, self._probe, device)
        return self._shown[name]

    @cached_property
    def _opened(self) -> Probe:
        settings = self.settings
        return open_declared(settings.in_distribution, base_dir=settings.root, cache=settings.cache)

    @cached_property
    def _positions(self) -> list[int]:
        return sorted(hashed_order(self._opened)[:IMAGES])

    @cached_property
    def _probe(self) -> Probe:
        return taken(self._opened, self._positions)

    def _mended(self, found: Checkup, tower: str) -> str:
        """Return how to write what the images are, if that alone was wrong; "" otherwise."""
        module, shown = self._module(found), self._reference(found)
        if tower != "image" or tower not in found.facts:
            return ""
        if module.io.pixels == "bytes":  # of another type: the graph takes them and nothing else
            return ""
        for pixels in set(PIXELS) - {module.io.pixels, "bytes"}:
            other = module.taking(replace(module.io, pixels=pixels))
            features = _features(other, tower, shown.inputs[tower], module.batch)
            if compare({tower: features}, shown.features)[0].verdict == "sound":
                return f"with io = {{ pixels = '{pixels}' }} they agree: write that"
        return ""


class Shown:
    """What is shown to every artifact of a model, and what FP32 makes of it.

    Args:
        loaded: the FP32 model.
        probe: whose images, and whose classes.
        device: where the model is.
    """

    def __init__(self, loaded: LoadedModel, probe: Probe, device: str) -> None:
        from clipq.models import prompt_tokens

        preprocess, count = loaded.preprocess, len(probe.classnames)
        pixels = np.stack([preprocess.to_uint8(image) for image in probe.images()])
        self.loaded, self._probe, self._device = loaded, probe, device
        self.classes = np.linspace(0, count - 1, min(PROMPTS, count)).round().astype(int)
        prompts = prompt_tokens(loaded.tokenizer, self._names, probe.templates[:1])
        self.inputs = {
            "image": preprocess.normalise(pixels).to(device),
            "text": prompts.to(device),
        }
        self.features = {
            tower: _features(loaded.model, tower, inputs, len(inputs))
            for tower, inputs in self.inputs.items()
        }

    @property
    def _names(self) -> list[str]:
        return [self._probe.classnames[at] for at in self.classes]

    @cached_property
    def embeddings(self) -> np.ndarray:
        """FP32's embeddings (C, D) of the same classes, over all templates."""
        from clipq.models import class_embeddings

        model, tokenizer = self.loaded.model, self.loaded.tokenizer
        templates = self._probe.templates
        found: np.ndarray = class_embeddings(
            model, tokenizer, self._names, templates, device=self._device
        ).numpy(force=True)
        return found


def _bytes(model: nn.Module, tower: str) -> int:
    """Return the bytes of a tower's weights; what is not the vision tower's is text's."""
    values = {id(each): each.nbytes for each in (*model.parameters(), *model.buffers())}
    visual: Any = model.visual
    image = {id(each) for each in (*visual.parameters(), *visual.buffers())}
    return sum(size for key, size in values.items() if (key in image) == (tower == "image"))


def _encode(model: Any, tower: str, inputs: torch.Tensor) -> np.ndarray:
    """Return features (B, D), float32, of one call."""
    from clipq.evaluation.encode import encoded_once

    return encoded_once(model.encode_image if tower == "image" else model.encode_text, inputs)


def _features(model: Any, tower: str, inputs: torch.Tensor, size: int) -> np.ndarray:
    import torch

    return np.concatenate([_encode(model, tower, part) for part in torch.split(inputs, size)])


def _picked(model: Any, tower: str, inputs: torch.Tensor, positions: np.ndarray) -> np.ndarray:
    return _encode(model, tower, inputs[positions])


def _repeated(inputs: torch.Tensor, size: int) -> torch.Tensor:
    """Return a batch of one size, samples taken again where there are too few."""
    return inputs[np.arange(size) % len(inputs)]


def _seconds(model: Any, tower: str, inputs: torch.Tensor) -> float:
    started = perf_counter()
    _encode(model, tower, inputs)
    return perf_counter() - started

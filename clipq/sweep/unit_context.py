"""What decides a unit's result beside the unit itself: the same digest wherever it is taken."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.cases import Candidate
from clipq.errors import SettingsError, SweepError
from clipq.evaluation.plan import load_plugins, metrics_of
from clipq.provenance import digest, package_versions, sha256_file
from clipq.quant import QuantizerSpec, method_code_hash
from clipq.quant.methods import trained_methods
from clipq.settings import Settings

if TYPE_CHECKING:
    from clipq.evaluation.inputs import Inputs

__all__ = ["UnitContexts", "unit_context"]

_PACKAGES = ("clipq", "torch", "open_clip_torch", "pillow", "timm", "torchvision")
"""Distributions whose versions can move a result, as they are part of every cache key."""


class UnitContexts:
    """Contexts of a project's units, by model and method; what they share is taken once.

    No path, host or date is part of them, but content: files of models, samples of probes,
    prompts, metrics and their versions, statistics, margins, baselines, the code of methods, the
    pairs that something is trained on or tuned to, files of artifacts, versions of packages.

    Args:
        settings: of the project, under the policy that is meant.
        probes: globs of what is measured; all by default.
        metrics: likewise.

    >>> from clipq.settings import load_settings
    >>> contexts = UnitContexts(load_settings(Path("clipq.toml")), metrics=("top1",))
    >>> sorted(contexts.parts("vit-clean", "rtn"))
    ['baseline', 'margins', 'method', 'metrics', 'model', 'numerics', 'probes', 'statistics']
    >>> contexts("vit-clean", "rtn") == contexts("vit-clean", "gptq")  # one code, but two methods
    False
    """

    def __init__(
        self, settings: Settings, *, probes: tuple[str, ...] = (), metrics: tuple[str, ...] = ()
    ) -> None:
        self.settings = settings
        self._globs = probes, metrics
        self._models: dict[str, dict[str, str]] = {}
        self._own: dict[tuple[str, str], dict[str, str]] = {}
        self._codes: dict[str, str] = {}
        self._made: dict[tuple[str, str], str] = {}

    def __call__(self, model: str, method: str) -> str:
        """Return the context (sha256, hex) of a method's units of a model.

        Raises:
            ClipqError: as of `parts`.
        """
        key = model, method
        if key not in self._made:
            self._made[key] = digest(self.parts(model, method))
        return self._made[key]

    def parts(self, model: str, method: str) -> dict[str, str]:
        """Return what a context is the digest of, by what people call it.

        Args:
            model: its name in the settings.
            method: of a quantizer, with those of its options that name code or data (a `table`, an
                `objective`) and ``+logit-scale`` where it is tuned, or a whole quantizer; an
                artifact's name.

        Raises:
            BaselineError: the model has no baseline.
            ClipqError: a file, a probe or a method cannot be read.
        """
        if model not in self._models:
            self._models[model] = self._of_model(model)
        key = model, method
        if key not in self._own:
            self._own[key] = self._of_method(model, method)
        return self._project | self._models[model] | self._own[key]

    def identity(self, pairs: list[tuple[str, str]], *, plan: str) -> dict[str, str]:
        """Return what `clipq.sweep.sweep_folder.settle` compares, with a name for each part.

        Args:
            pairs: (model, method) of the plan.
            plan: its digest.
        """
        found = {"plan": plan} | self._project
        for model, method in pairs:
            parts = self.parts(model, method)
            found |= {f"{name} of {model}": parts[name] for name in ("model", "baseline")}
            for name in self._own[model, method]:
                found[f"{name} {method} (of {model})"] = parts[name]
        return found

    @cached_property
    def _inputs(self) -> Inputs:
        from clipq.evaluation.cache import Cache
        from clipq.evaluation.inputs import Inputs

        load_plugins(self.settings)
        return Inputs(self.settings, Cache(self.settings.cache))

    @cached_property
    def _project(self) -> dict[str, str]:
        """What all units of the project share."""
        from clipq.evaluation.identity import prompts_identity
        from clipq.evaluation.predict import CANDIDATE_VERSION, COLUMNS_VERSION

        inputs = self._inputs
        unseen = {probe.name for probe in self.settings.withheld}
        evaluated = [probe for probe in self.settings.evaluated if probe.name not in unseen]
        seen = {
            name: [
                probe.role,
                probe.fingerprint,
                digest([probe.classnames, probe.class_map]),
                digest(probe.captions if probe.role == "retrieval" else None),
            ]
            for name, probe in inputs.probes.items()
        }
        versions = {
            probe.name: {one.name: one.version for one in metrics_of(self.settings, probe)}
            for probe in evaluated
        }
        numerics: dict[str, Any] = {
            "columns": [COLUMNS_VERSION, CANDIDATE_VERSION],
            "packages": dict(package_versions(_PACKAGES)),
            "device": [self.settings.device, self.settings.backend],
            "batch_size": self.settings.batch_size,
            "threads": self.settings.threads,
        }
        return {
            "probes": digest(
                {
                    "seen": seen,
                    "pooled": inputs.pooled,
                    "calibration": inputs.calibration_fingerprint,
                    "prompts": prompts_identity(inputs.known),
                }
            ),
            "metrics": digest([versions, self._globs, self.settings.exclude]),
            "statistics": digest(asdict(self.settings.statistics)),
            "numerics": digest(numerics),
            "margins": _hashed(self.settings.margins),
        }

    def _of_model(self, name: str) -> dict[str, str]:
        from clipq.evaluation.identity import files_identity
        from clipq.gating.baseline import columns_path, json_path
        from clipq.sweep.measuring import check_baselines

        check_baselines(self.settings, [name])
        folder, declared = self.settings.baselines, self.settings.model(name)
        files = files_identity(declared, root=self.settings.root)
        local = declared.source.startswith("local-dir:")
        return {
            "model": digest([files, "" if local else declared.source]),
            "baseline": digest([_hashed(p(folder, name)) for p in (json_path, columns_path)]),
        }

    def _of_method(self, model: str, method: str) -> dict[str, str]:
        """Return what a method, or an artifact, adds to what all of a model's units hang on."""
        candidate = Candidate(model, method)
        if self.settings.artifact(candidate) is not None:
            from clipq.evaluation.artifact_origin import artifact_origin

            origin = artifact_origin(candidate, self.settings, self._inputs)
            found = {"method": digest([origin, candidate.tuned])}
            return found | ({"pairs": self._pairs} if candidate.tuned else {})
        spec = QuantizerSpec.parse(method)
        if method not in self._codes:
            code = "" if spec.base.is_reference else method_code_hash(spec.base)
            self._codes[method] = digest([method, code])
        found = {"method": self._codes[method]}
        # Its code is known by now, and with it what it says of itself.
        if spec.method in trained_methods():
            found |= {"training": _training(spec), "trained": self._states(model, spec.method)}
        return found | ({"pairs": self._pairs} if spec.tuned or "training" in found else {})

    @cached_property
    def _pairs(self) -> str:
        """What identifies the pairs that are trained on; "" where there are none.

        A state that was trained elsewhere needs none, and what does need some says so itself.
        """
        try:
            return self._inputs.proxy_fingerprint
        except SettingsError:
            return ""

    def _states(self, model: str, method: str) -> str:
        """Return the digest of what a method has learnt of a model, in the settings' folder."""
        from clipq.evaluation.identity import files_identity
        from clipq.evaluation.trained_folder import folders_below
        from clipq.evaluation.trained_manifest import TrainedManifest
        from clipq.evaluation.training_unit import differing_parent

        parent = files_identity(self.settings.model(model), root=self.settings.root)
        read = [TrainedManifest.read(path) for path in folders_below(self.settings.trained)]
        return digest(
            sorted(
                (one.quantizer, one.state_sha256)
                for one in read
                if QuantizerSpec.parse(one.quantizer).method == method
                and not list(differing_parent(one.unit.parent, parent))
            )
        )


def unit_context(settings: Settings, model: str, method: str) -> str:
    """Return one context; of many, `UnitContexts` takes what they share once.

    >>> from clipq.settings import load_settings
    >>> len(unit_context(load_settings(Path("clipq.toml")), "vit-clean", "rtn"))
    64
    """
    return UnitContexts(settings)(model, method)


def _training(spec: QuantizerSpec) -> str:
    """Return the digest of the code that trains a method, of its objective too."""
    from clipq.evaluation.training_code import training_code
    from clipq.evaluation.training_run import objective_of

    return digest(training_code(str(spec.base), objective_of(spec)))


def _hashed(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise SweepError(f"{path} cannot be read: {error}") from error

"""What decides a unit's result beside the unit itself: the same digest wherever it is taken."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from clipq.errors import SweepError
from clipq.provenance import digest, package_versions, sha256_file
from clipq.settings import Settings

__all__ = ["UnitContexts", "unit_context"]


class UnitContexts:
    """Contexts of a project's units, by model and method; what they share is taken once.

    No path, host or date is part of them, but content: files of models, samples of probes,
    prompts, metrics and their versions, statistics, margins, baselines, the code of methods.

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
        self._methods: dict[str, str] = {}
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
            method: of a quantizer, or a whole quantizer; an artifact's name.

        Raises:
            BaselineError: the model has no baseline.
            ClipqError: a file, a probe or a method cannot be read.
        """
        if model not in self._models:
            self._models[model] = self._of_model(model)
        return self._project | self._models[model] | {"method": self._of_method(model, method)}

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
            found[f"method {method} (of {model})"] = parts["method"]
        return found

    @cached_property
    def _project(self) -> dict[str, str]:
        """What all units of the project share."""
        from clipq.evaluation.cache import Cache
        from clipq.evaluation.identity import prompts_identity
        from clipq.evaluation.inputs import Inputs
        from clipq.evaluation.plan import load_plugins, metrics_of
        from clipq.evaluation.predict import CANDIDATE_VERSION, COLUMNS_VERSION

        load_plugins(self.settings)
        inputs = Inputs(self.settings, Cache(self.settings.cache))
        unseen = {probe.name for probe in self.settings.withheld}
        evaluated = [probe for probe in self.settings.evaluated if probe.name not in unseen]
        seen = {
            name: [probe.role, probe.fingerprint, digest([probe.classnames, probe.class_map])]
            for name, probe in inputs.probes.items()
        }
        proxy = self.settings.proxy
        versions = {
            probe.name: {one.name: one.version for one in metrics_of(self.settings, probe)}
            for probe in evaluated
        }
        numerics: dict[str, Any] = {
            "columns": [COLUMNS_VERSION, CANDIDATE_VERSION],
            "clipq": package_versions(("clipq",))["clipq"],
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
                    "proxy": asdict(proxy) if proxy is not None else None,
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

    def _of_method(self, model: str, method: str) -> str:
        from clipq.cases import Candidate
        from clipq.quant import QuantizerSpec, method_code_hash

        artifact = self.settings.artifact(Candidate(model, method))
        if artifact is not None:
            plain = {name: str(value) for name, value in asdict(artifact).items()}
            return digest(plain)
        if method not in self._methods:
            spec = QuantizerSpec.parse(method)
            code = "" if spec.base.is_reference else method_code_hash(spec.base)
            self._methods[method] = digest([method, code])
        return self._methods[method]


def unit_context(settings: Settings, model: str, method: str) -> str:
    """Return one context; of many, `UnitContexts` takes what they share once.

    >>> from clipq.settings import load_settings
    >>> len(unit_context(load_settings(Path("clipq.toml")), "vit-clean", "rtn"))
    64
    """
    return UnitContexts(settings)(model, method)


def _hashed(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise SweepError(f"{path} cannot be read: {error}") from error

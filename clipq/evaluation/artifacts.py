"""Artifacts of the settings in this process: made where a recipe says how, hashed, opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from clipq.artifact_settings import BROUGHT, FP32_TOWER, ArtifactSettings, SessionSettings
from clipq.cases import Candidate, Cell
from clipq.errors import ArtifactError
from clipq.evaluation.artifact_files import ArtifactFiles, artifact_files, artifact_identity
from clipq.evaluation.inputs import Inputs
from clipq.evaluation.plan import simulation_of
from clipq.evaluation.tower_process import TowerProcess
from clipq.provenance import package_versions
from clipq.quant.formats import Format
from clipq.quant.storage import state_bytes
from clipq.redaction import HIDDEN, is_secret_name, redacted
from clipq.runtimes import Finding, Look, runtimes
from clipq.runtimes.cpu_flags import cpu_flags
from clipq.runtimes.feature_files import FeatureFiles
from clipq.runtimes.float_share import float_share_findings
from clipq.runtimes.precision import precision_findings
from clipq.settings import Settings

if TYPE_CHECKING:
    import numpy as np

    from clipq.evaluation.artifact_module import ArtifactModule
    from clipq.models import LoadedModel

_USUAL = ("infinite-constant", "mask")
"""Every text tower holds a mask of -inf: `clipq artifact check` says so, a record need not."""

__all__ = ["Artifacts", "recorded_session"]


class Artifacts:
    """Makes, hashes and opens the artifacts of some settings, each once per process.

    Args:
        settings: which there are.
        inputs: calibration data, of which recipes make artifacts.
        models: loads the FP32 model that one is judged against.
    """

    def __init__(
        self, settings: Settings, inputs: Inputs, models: Callable[[str], LoadedModel]
    ) -> None:
        self.settings = settings
        self._inputs, self._models = inputs, models
        self._files: dict[Candidate, ArtifactFiles] = {}
        self._resolved: dict[Candidate, ArtifactSettings] = {}
        self._process: tuple[Candidate, TowerProcess] | None = None
        self._module: tuple[Candidate, ArtifactModule] | None = None
        self._brought: tuple[Candidate, FeatureFiles] | None = None
        self._looks: dict[Candidate, dict[str, Look]] = {}

    def identity(self, candidate: Candidate) -> dict[str, Any]:
        """Return what identifies an artifact's results; its files are hashed once per process.

        Raises:
            ArtifactError: a file is missing or cannot be made.
        """
        artifact = self._artifact(candidate)
        return artifact_identity(artifact, self.files(candidate), batch=self.batch(candidate))

    def batch(self, candidate: Candidate) -> int:
        """Return the number of samples per call."""
        return self._declared(candidate).batch or self.settings.batch_size

    def files(self, candidate: Candidate) -> ArtifactFiles:
        """Return the files of an artifact, hashed."""
        if candidate not in self._files:
            artifact = self._artifact(candidate)
            found = artifact_files(artifact, self._running(candidate), root=self.settings.root)
            self._files[candidate] = found
        return self._files[candidate]

    def module(self, candidate: Candidate) -> ArtifactModule:
        """Return an artifact that is open; there is one at a time.

        Raises:
            ArtifactError: its runtime refuses it, or it is not the one that was hashed.
        """
        if self._module is None or self._module[0] != candidate:
            from clipq.evaluation.artifact_module import ArtifactModule

            hashed, artifact = self.files(candidate), self._artifact(candidate)
            self.looks(candidate)
            opened = ArtifactModule(
                artifact,
                hashed,
                self._running(candidate),
                self._models(candidate.model),
                batch=self.batch(candidate),
            )
            self._refuse_change(candidate, "opened")
            self._module = candidate, opened
        return self._module[1]

    def _refuse_change(self, candidate: Candidate, doing: str) -> None:
        """Refuse files that are no longer those that were hashed."""
        artifact, process = self._artifact(candidate), self._running(candidate)
        now = artifact_files(artifact, process, root=self.settings.root)
        if now.sha256 != self.files(candidate).sha256:
            raise ArtifactError(
                f"artifact {candidate.quantizer!r}: its files changed while they were {doing}",
                hint="run again when nobody writes them any more",
            )

    def rows(self, cell: Cell) -> np.ndarray | None:
        """Return a cell's features (N, D) that were made elsewhere; None of what is run.

        Raises:
            ArtifactError: samples are missing, double or foreign, or a row is no vector of numbers.
        """
        candidate = cell.candidate
        if self._declared(candidate).runtime != BROUGHT:
            return None
        if self._brought is None or self._brought[0] != candidate:
            known = dict(self._inputs.probes)
            if self._declared(candidate).logit_scale:
                known[self._inputs.proxy.name] = self._inputs.proxy
            samples = {
                p.name: known[p.name].ids if p.name in known and p.attack is None else None
                for p in self.settings.probes
            }
            output = self._artifact(candidate).io.output
            files = FeatureFiles(self.files(candidate).image, samples, output=output)
            self._brought = candidate, files
        rows = self._brought[1].rows(cell.probe)
        self._refuse_change(candidate, "read")
        return rows

    def looks(self, candidate: Candidate) -> dict[str, Look]:
        """Return what each tower's file says of itself, found without running it."""
        if candidate not in self._looks:
            towers = self.files(candidate).towers
            process = self._running(candidate)
            self._looks[candidate] = {name: process.look(path) for name, path in towers.items()}
        return self._looks[candidate]

    def findings(self, candidate: Candidate) -> tuple[Finding, ...]:
        """Return what is wrong with an artifact's files and with how its runtime opens them."""
        asked, found = self._artifact(candidate).session.precision, []
        facts = self.module(candidate).facts
        for tower, look in self.looks(candidate).items():
            own = [*look.findings]
            if tower in facts:
                own += precision_findings(asked, facts[tower]) + float_share_findings(facts[tower])
            found += [each.of_tower(tower) for each in own if each.kind not in _USUAL]
        return tuple(found)

    def evidence(self, candidate: Candidate) -> dict[str, Any]:
        """Return what a record says of an artifact that was opened, as strict-JSON values."""
        artifact, files = self._declared(candidate), self.files(candidate)
        runtime = runtimes.get(artifact.runtime)
        module = self.module(candidate)
        model: Any = self._models(candidate.model).model
        left = 0 if artifact.text != FP32_TOWER else state_bytes(model) - state_bytes(model.visual)
        return {
            "runtime": artifact.runtime,
            "versions": dict(package_versions(runtime.packages)),
            **({"bytes": files.bytes + left} if self._artifact(candidate).is_stored else {}),
            "float_bytes": state_bytes(model),
            "batch": module.batch,
            "session": recorded_session(artifact.session),
            "io": asdict(self._artifact(candidate).io),
            "cpu": list(cpu_flags()),
            "towers": artifact.towers,
            "looks": {tower: _counts(look) for tower, look in self.looks(candidate).items()},
            "executed": {tower: facts.executed for tower, facts in module.facts.items()},
            "findings": [each.to_plain() for each in self.findings(candidate)],
        }

    def declared(self, candidate: Candidate) -> dict[str, Any]:
        """Return what a record says of an artifact that the settings say, as they are now.

        It is not kept with results, which do not depend on it: who renames a file or names another
        simulation measures nothing again.
        """
        artifact = self._declared(candidate)
        held = self.files(candidate.base).sha256
        return {
            "files": {role: dict(hashes) for role, hashes in held.items()},
            "format": artifact.format,
            "part_of": artifact.part_of,
            "simulation": simulation_of(candidate, self.settings),
            "recipe": artifact.recipe,
        }

    def give_up(self) -> None:
        """Let go of what is open."""
        if self._process is not None:
            self._process[1].close()
        self._process = self._module = None

    # -- steps ---------------------------------------------------------------------------------

    def _declared(self, candidate: Candidate) -> ArtifactSettings:
        declared = self.settings.artifact(candidate)
        if declared is None:
            raise ArtifactError(
                f"{candidate} is no artifact", hint="[[artifacts]] of the settings declares them"
            )
        return declared

    def _running(self, candidate: Candidate) -> TowerProcess:
        if self._process is None or self._process[0] != candidate:
            self.give_up()
            self._process = candidate, TowerProcess(self._artifact(candidate), self.settings)
        return self._process[1]

    def _artifact(self, candidate: Candidate) -> ArtifactSettings:
        """Return an artifact with its files, made where a recipe says how."""
        if candidate not in self._resolved:
            declared = self._declared(candidate)
            if declared.recipe:
                declared = self._made(candidate, declared)
            self._resolved[candidate] = declared
        return self._resolved[candidate]

    def _made(self, candidate: Candidate, declared: ArtifactSettings) -> ArtifactSettings:
        """Return an artifact whose recipe has been followed, once for all processes."""
        from clipq.evaluation.artifact_maker import make_apart, recipe_key
        from clipq.exports import MANIFEST, Manifest, recipes

        recipe = recipes.get(declared.recipe)
        runtime = recipe.runtime
        formats = recipe.format, declared.format
        made, said = (Format.parse(each).bits_class if each else "" for each in formats)
        if made and said and made != said:  # it would be judged by the margins of another
            raise ArtifactError(
                f"artifact {declared.name!r}: recipe {declared.recipe!r} makes {recipe.format}, "
                f"not format = {declared.format!r}",
                hint=f"write format = {recipe.format!r}",
            )
        if runtime != declared.runtime:
            raise ArtifactError(
                f"artifact {declared.name!r}: recipe {declared.recipe!r} makes files of runtime "
                f"{runtime!r}, not of {declared.runtime!r}",
                hint=f"write runtime = {runtime!r}",
            )
        loaded = self._models(candidate.model)
        key = recipe_key(declared.recipe, self._inputs, loaded, batch=declared.batch)
        folder = self.settings.cache / "artifacts" / f"{declared.recipe}-{key[:16]}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not (folder / MANIFEST).is_file():
                asked = candidate.model, declared.recipe, folder
                try:
                    make_apart(self.settings, *asked, batch=declared.batch)
                except ArtifactError:
                    if not (folder / MANIFEST).is_file():  # by a maker whose asker was killed
                        raise
        manifest = Manifest.read(folder)
        files = (manifest.image, manifest.text)
        if declared.is_float and manifest.float_image:  # kept beside what was made of them
            files = (manifest.float_image, manifest.float_text)
        image, text = (str(folder / name) if name else "" for name in files)
        session = declared.session
        if not session.precision:  # the one that its maker means: OpenVINO takes a lower by itself
            session = replace(session, precision=manifest.precision)
        return replace(declared, image=image, text=text, io=manifest.io, session=session)


def recorded_session(session: SessionSettings) -> dict[str, Any]:
    """Return a session as records and caches hold it: without the values of secrets.

    >>> recorded_session(SessionSettings(env={"HF_TOKEN": "enigma", "OMP_WAIT_POLICY": "x"}))["env"]
    {'HF_TOKEN': '***', 'OMP_WAIT_POLICY': 'x'}
    """
    plain = asdict(session)
    for held in ("env", "options"):
        plain[held] = {
            name: HIDDEN
            if is_secret_name(name)
            else redacted(value)
            if isinstance(value, str)
            else value
            for name, value in plain[held].items()
        }
    return plain


def _counts(look: Look) -> dict[str, Any]:
    """Return what of a look a record keeps: findings stand beside it."""
    return {
        "bytes": look.bytes,
        "quantized": dict(look.quantized),
        "in_float": dict(look.in_float),
        "opset": look.opset,
    }

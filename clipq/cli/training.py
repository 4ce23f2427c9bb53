"""Trainings that a command line asks for: which, where to, how far they are, what comes next."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from clipq.cases import Candidate
from clipq.cli.context import settings_of
from clipq.cli.progress import Progress, duration, watching
from clipq.errors import QuantizerError, SettingsError, did_you_mean
from clipq.settings import ProbeSettings, Settings
from clipq.terminal import emit, say

if TYPE_CHECKING:
    from clipq.evaluation.evaluator import Evaluator
    from clipq.evaluation.trained_folder import TrainedFolder
    from clipq.training.training_outcome import TrainingProgress

__all__ = ["resume_training", "start_trainings"]

_GLOB = "*?["


def start_trainings(options: argparse.Namespace) -> int:
    """Train everything that is asked for and is not done, and say how to gate it; return 0 or 130.

    Raises:
        ClipqError: a model, a quantizer, the pairs or the folder cannot be used.
    """
    from clipq.evaluation.training_run import refuse_other

    settings = _settings(options)
    candidates = _candidates(options, settings)
    with watching(options, unit="image") as watch:
        evaluator = _evaluator(settings, watch)
        units = [evaluator.encoders.trained.unit(candidate) for candidate in candidates]
        places = [options.output if len(units) == 1 else options.output / u.name for u in units]
        for unit, place in zip(units, places, strict=True):
            refuse_other(unit, place)  # all of them, before any takes its time
        done = []
        for candidate, place in zip(candidates, places, strict=True):
            trained = _train(evaluator, candidate, place, watch, options)
            if trained is None:
                return 130
            done.append(trained)
    _tell_next(settings, done)
    return 0


def resume_training(options: argparse.Namespace, folder: Path) -> int:
    """Go on with a training that was interrupted; return 0 or 130.

    Raises:
        ClipqError: the folder holds none, or one of another recipe, model, code or data.
    """
    from clipq.evaluation.trained_folder import TrainedFolder
    from clipq.evaluation.trained_manifest import TRAINED
    from clipq.evaluation.training_run import refuse_other
    from clipq.evaluation.training_unit import UNIT, TrainingUnit

    if (folder / TRAINED).is_file():
        found = TrainedFolder.read(folder)
        say(f"clipq: {folder} is finished: there is nothing to go on with", error=True)
        _tell_next(_settings(options), [found])
        return 0
    if not (folder / UNIT).is_file():
        raise QuantizerError(
            f"{folder} holds no training",
            hint="name the folder that was given as --output; of several trainings, one of those "
            "in it",
        )
    settings, before = _settings(options), TrainingUnit.read(folder)
    settings.model(before.model)
    candidate = Candidate(before.model, before.quantizer)
    with watching(options, unit="image") as watch:
        evaluator = _evaluator(settings, watch)
        refuse_other(evaluator.encoders.trained.unit(candidate), folder)
        trained = _train(evaluator, candidate, folder, watch, options)
    if trained is None:
        return 130
    _tell_next(settings, [trained])
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    """Return the settings with what the command line says instead."""
    from clipq.evaluation.plan import load_plugins

    settings = settings_of(options)
    if options.threads is not None and options.threads < 1:
        raise SettingsError(f"--threads {options.threads}", hint="a whole number from 1")
    if options.device:
        settings = replace(settings, device=options.device)
    if options.threads:
        settings = replace(settings, threads=options.threads)
    if options.proxy:
        others = tuple(probe for probe in settings.probes if probe.role != "proxy")
        pairs = ProbeSettings("proxy", "proxy", options.proxy, split=options.split)
        if any(probe.name == pairs.name for probe in others):
            pairs = replace(pairs, name="proxy-of-the-command-line")
        settings = replace(settings, probes=(*others, pairs))
    load_plugins(settings)
    return settings


def _candidates(options: argparse.Namespace, settings: Settings) -> list[Candidate]:
    """Return what is to be trained, each once, in the order of the words."""
    known = [model.name for model in settings.models]
    models = [name for name in known if fnmatchcase(name, options.model)]
    if not models:
        raise SettingsError(
            f"{settings.path} declares no model {options.model!r}",
            hint=did_you_mean(options.model, known),
        )
    texts = [text for word in options.named for text in _quantizers(word, models, settings)]
    found = [Candidate(model, text) for model in models for text in texts]
    return list(dict.fromkeys(found))


def _quantizers(word: str, models: Sequence[str], settings: Settings) -> list[str]:
    """Return the quantizers that a word names: its own text, or those of the matrix that it fits.

    Raises:
        QuantizerError: what it names is not trained.
    """
    from clipq.evaluation.plan import planned_quantizers
    from clipq.evaluation.trained_search import learns, refuse_untrained
    from clipq.evaluation.training_run import objective_of
    from clipq.quant import QuantizerSpec
    from clipq.quant.methods import trained_methods

    if any(letter in word for letter in _GLOB):
        planned = [text for text in planned_quantizers(settings) if fnmatchcase(text, word)]
        names = {artifact.name for artifact in settings.artifacts}
        fitting = [text for text in planned if text not in names and learns(text)]
        if fitting:
            return fitting
        if planned:
            raise QuantizerError(
                f"{word!r} fits {', '.join(planned)} of [matrix], and none of them is trained",
                hint=f"methods that learn: {', '.join(trained_methods())}",
            )
    for model in models:
        if settings.artifact(Candidate(model, word)) is not None:
            raise QuantizerError(
                f"{word!r} is an artifact of {model}, which is files and not trained",
                hint=f"train a quantizer: clipq train {model} lsq:w4a8 --output FOLDER",
            )
    try:
        text = refuse_untrained(word)
    except QuantizerError as error:
        if not any(letter in word for letter in _GLOB):
            raise
        raise QuantizerError(
            f"{word!r} fits no quantizer of [matrix], and is none itself: {error.problem}",
            hint="list the quantizer in [matrix] of clipq.toml, or write it in full: lsq:w4a8",
        ) from error
    objective_of(QuantizerSpec.parse(text))  # refused before anything is loaded
    return [text]


def _evaluator(settings: Settings, watch: Progress) -> Evaluator:
    from clipq.evaluation.evaluator import Evaluator

    def decoding(what: str, done: int, total: int) -> None:
        if not what.startswith("training "):  # of which more is said: its loss
            watch(what, done, total)

    # torchrun numbers the processes of a machine: each takes a GPU of its own.
    return Evaluator(settings, worker=int(os.environ.get("LOCAL_RANK", "0")), progress=decoding)


def _train(
    evaluator: Evaluator,
    candidate: Candidate,
    folder: Path,
    watch: Progress,
    options: argparse.Namespace,
) -> TrainedFolder | None:
    """Train into a folder; None where somebody interrupted it, who is told how to go on."""
    from clipq.evaluation.trained_manifest import TRAINED
    from clipq.evaluation.training_run import is_first_process

    if (folder / TRAINED).is_file():
        _say(options, f"clipq: {folder} is finished: left as it is")
    reached = 0

    def tell(at: TrainingProgress) -> None:
        nonlocal reached
        reached = at.step
        last = f", held out {at.looks[-1].total:.4g}" if at.looks else ""
        watch.step(f"{candidate}: loss {at.loss['total']:.4g}{last}", at.step, at.steps)

    try:
        return evaluator.encoders.trained.train(
            candidate, folder, watch=tell, sharded=options.sharded
        )
    except KeyboardInterrupt:
        watch.clear()
        if is_first_process():
            say(
                f"clipq: interrupted at step {reached}; the last checkpoint is kept\n"
                f"  fix: clipq train resume {folder}",
                error=True,
            )
        return None


def _say(options: argparse.Namespace, text: str) -> None:
    from clipq.evaluation.training_run import is_first_process

    if is_first_process() and not options.quiet:
        say(text, error=True)


def _tell_next(settings: Settings, done: Sequence[TrainedFolder]) -> None:
    """Say what was trained, and print what clipq.toml needs to gate it."""
    from clipq.evaluation.training_run import is_first_process

    if not is_first_process():
        return
    for each in done:
        manifest = each.manifest
        first, kept = manifest.gain
        gain = "" if first is None or kept is None else f"held-out loss {first:.4g} -> {kept:.4g}, "
        say(
            f"clipq: {each.path}: {manifest.quantizer} of {manifest.unit.model}, {gain}step "
            f"{manifest.best_step} of {manifest.steps} kept, {duration(manifest.seconds)}",
            error=True,
        )
    outside = [each.path for each in done if not _below(each.path, settings.trained)]
    say("clipq: for clipq.toml; then run `clipq gate`:", error=True)
    root = [outside[0] if len(done) == 1 else outside[0].parent] if outside else []  # of them all
    lines = [
        line
        for place in root
        for line in ("[clipq]", f'trained = "{_relative(place, settings.root)}"', "")
    ]
    texts = ", ".join(f'"{text}"' for text in dict.fromkeys(e.manifest.quantizer for e in done))
    emit("\n".join([*lines, "[matrix]", f"quantizers = [{texts}]  # and those that it has"]))


def _below(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()

"""Which artifacts a command line means: some of those declared, or files that nobody declared."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from pathlib import Path

from clipq.artifact_settings import (
    CODE,
    FP32_TOWER,
    INTEGERS,
    LAYOUTS,
    OUTPUTS,
    PIXELS,
    PRECISIONS,
    ArtifactSettings,
    IoSettings,
    SessionSettings,
)
from clipq.errors import SettingsError, UnknownNameError, did_you_mean
from clipq.settings import Settings

__all__ = ["chosen_artifacts", "given_artifact", "io_of"]

_OF_FILES = ("image", "text", "batch", "threads", "precision", "provider", "io")
_ALLOWED = {"layout": LAYOUTS, "pixels": PIXELS, "text_dtype": INTEGERS, "output": OUTPUTS}


def chosen_artifacts(
    settings: Settings, names: Sequence[str], *, model: str = ""
) -> tuple[ArtifactSettings, ...]:
    """Return the artifacts of the settings that some globs name, in file order.

    Args:
        settings: which there are.
        names: globs over NAME, or MODEL/NAME; float graphs and variants go with the artifact that
            they are part of. Empty for all.
        model: of this model alone; "" for every one.

    Raises:
        UnknownNameError: a glob names none, or there is no such model.
        SettingsError: there are none.

    >>> from clipq.settings import load_settings
    >>> chosen_artifacts(load_settings(Path("clipq.toml")), ["nobody's"])
    Traceback (most recent call last):
    ...
    clipq.errors.UnknownNameError: no artifact matches "nobody's"
    ...
    """
    of_model = [a for a in settings.artifacts if not model or a.model == settings.model(model).name]
    known = [f"{each.model}/{each.name}" for each in of_model]
    for name in names:
        if not any(_matches(each, name) for each in of_model):
            raise UnknownNameError(f"no artifact matches {name!r}", hint=did_you_mean(name, known))
    if not of_model:
        raise SettingsError(
            f"{settings.path} declares no [[artifacts]]{f' of {model!r}' if model else ''}",
            hint="declare one, or give files: --model MODEL --runtime RUNTIME --image FILE "
            "--text FILE",
        )
    return tuple(
        each for each in of_model if not names or any(_matches(each, name) for name in names)
    )


def given_artifact(options: argparse.Namespace, settings: Settings) -> ArtifactSettings | None:
    """Return the artifact that files of the command line make; None where it names none.

    Paths are relative to where the command was called.

    Raises:
        SettingsError: an option is missing, or has no value that it may have.
    """
    given = [f"--{name}" for name in _OF_FILES if getattr(options, name)]
    if not options.runtime:
        if given:
            raise SettingsError(
                f"{given[0]} is of files that are not declared, and --runtime is not given",
                hint="say what runs them: --runtime onnxruntime",
            )
        return None
    if options.names:
        raise SettingsError(
            f"both {options.names[0]!r} and --runtime",
            hint="name declared artifacts, or give files that are not",
        )
    makes_both = CODE in (options.image or "")
    needed = ("model", "image") if makes_both else ("model", "image", "text")
    missing = [f"--{name}" for name in needed if not getattr(options, name)]
    if missing:
        raise SettingsError(
            f"--runtime without {' and '.join(missing)}",
            hint="--model names the FP32 model, --image and --text the files of its towers; "
            f"--text {FP32_TOWER} where only the image tower ships",
        )
    if options.precision and options.precision not in PRECISIONS:
        raise SettingsError(
            f"--precision {options.precision}", hint=did_you_mean(options.precision, PRECISIONS)
        )
    for name in ("batch", "threads"):
        if getattr(options, name) < 0:
            raise SettingsError(
                f"--{name} {getattr(options, name)}", hint="a whole number from 1 on"
            )
    text = options.text or ""
    return ArtifactSettings(
        _slug(options.image),
        settings.model(options.model).name,
        options.runtime,
        image=_placed(options.image),
        text=text if text in ("", FP32_TOWER) else _placed(text),
        batch=options.batch,
        session=SessionSettings(options.threads, options.precision, options.provider),
        io=io_of(options.io),
    )


def io_of(given: Sequence[str]) -> IoSettings:
    """Return what ``KEY=VALUE`` texts say of a graph's inputs and outputs.

    Raises:
        SettingsError: an unknown key, or a value that it does not take.

    >>> io_of(["layout=NHWC"]).layout
    'NHWC'
    >>> io_of(["layout=CHWN"])
    Traceback (most recent call last):
    clipq.errors.SettingsError: --io layout='CHWN'
      fix: known: NCHW, NHWC
    """
    found: dict[str, str] = {}
    known = [each.name for each in fields(IoSettings)]
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or key not in known:
            raise SettingsError(f"--io {text!r}", hint=f"KEY=VALUE; {did_you_mean(key, known)}")
        if value not in _ALLOWED.get(key, (value,)):
            raise SettingsError(f"--io {key}={value!r}", hint=f"known: {', '.join(_ALLOWED[key])}")
        found[key] = value
    return replace(IoSettings(), **found)


def _matches(artifact: ArtifactSettings, pattern: str) -> bool:
    names = (artifact.name, artifact.part_of, f"{artifact.model}/{artifact.name}")
    return any(fnmatchcase(name, pattern) for name in names if name)


def _placed(written: str) -> str:
    """Return a path of the command line as the settings may hold it."""
    return str(Path.cwd() / written)


def _slug(path: str) -> str:
    """Return a file's name as that of an artifact."""
    stem = re.sub(r"[^a-z0-9_-]+", "-", Path(path.partition(CODE)[0]).stem.lower()).strip("-_")
    usable = stem[:1].isalpha() and stem != FP32_TOWER  # which is the reference
    return stem if usable else f"file-{stem}".rstrip("-")

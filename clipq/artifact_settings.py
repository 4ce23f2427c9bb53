"""One `[[artifacts]]` table of clipq.toml: exported files that stand where a quantizer stands.

An artifact belongs to one model and is run by a runtime, in a process of its own. From one table
may come several candidates: the artifact itself; ``NAME-float``, the float graph that it was made
from; and ``NAME-VARIANT`` for every variant of its session. Where its `logit_scale` says so, the
artifact is also judged with a tuned one: ``NAME+logit-scale``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from clipq.errors import did_you_mean
from clipq.shapes import Document, Meta, Name, Text, keys, one_of, table, whole

__all__ = [
    "BROUGHT",
    "CODE",
    "FP32_TOWER",
    "INTEGERS",
    "LARGEST_BATCH",
    "LAYOUTS",
    "OUTPUTS",
    "PIXELS",
    "PRECISIONS",
    "ArtifactSettings",
    "FloatSettings",
    "IoSettings",
    "SessionSettings",
    "artifact_table",
    "read_artifacts",
]

LAYOUTS = ("NCHW", "NHWC")
PIXELS = ("normalised", "unit", "bytes")
INTEGERS = ("int64", "int32")
OUTPUTS = ("features", "normalised")
PRECISIONS = ("f32", "f16", "bf16")
LARGEST_BATCH = 65536

FP32_TOWER = "fp32"
"""In the place of a text graph: the reference's own text tower."""

BROUGHT = "features"
"""The runtime that runs nothing: features of the probes' images were made elsewhere."""
CODE = ".py:"
"""In the place of a file: code and the function in it, which makes both towers."""

_NAME = "lower-case letters, digits, '-' and '_', a letter first, e.g. 'ort-int8'"
_ArtifactName = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_-]*\Z", description=_NAME)]
_Values = Mapping[str, Annotated[str, Meta(description="a text")]]
_Any = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How a runtime is asked to run: the artifact's `session`.

    Args:
        threads: for one operator; 0 for `threads` of the settings.
        precision: what float operations are to be executed in; "" leaves it to the runtime.
        provider: execution provider or device of the runtime, e.g. ``CPUExecutionProvider``; "" for
            its first.
        env: environment variables of the process that runs it, set before a library is loaded.
        options: the runtime's own options, by its own names.

    >>> SessionSettings(env={"ONEDNN_MAX_CPU_ISA": "AVX2"}).threads
    0
    """

    threads: Annotated[int, whole(0, 1024)] = 0
    precision: Annotated[str, one_of(*PRECISIONS)] = ""
    provider: Text = ""
    env: _Values = field(default_factory=dict)
    options: _Any = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IoSettings:
    """What the graphs take and return: the artifact's `io`. "" means: the only one there is.

    Args:
        image_input: name of the image graph's input.
        layout: of images, ``NCHW`` or ``NHWC``.
        pixels: ``normalised`` by the model's mean and deviation, ``unit`` from 0 to 1, or ``bytes``
            from 0 to 255 (uint8).
        image_output: name of the image graph's output.
        text_input: name of the text graph's input of tokens.
        text_dtype: of tokens.
        mask_input: name of an input that takes 1 where a token is and 0 where padding is.
        text_output: name of the text graph's output.
        output: ``features`` as open_clip returns them, or ``normalised`` to unit length.

    >>> IoSettings(image_input="pixel_values", text_input="input_ids").layout
    'NCHW'
    """

    image_input: Text = ""
    layout: Annotated[str, one_of(*LAYOUTS)] = "NCHW"
    pixels: Annotated[str, one_of(*PIXELS)] = "normalised"
    image_output: Text = ""
    text_input: Text = ""
    text_dtype: Annotated[str, one_of(*INTEGERS)] = "int64"
    mask_input: Text = ""
    text_output: Text = ""
    output: Annotated[str, one_of(*OUTPUTS)] = "features"


@dataclass(frozen=True, slots=True)
class FloatSettings:
    """The float graphs that an artifact was made from: its `float`.

    Args:
        image: file of the image tower.
        text: file of the text tower; "" for the artifact's own.
        recipe: in the place of files: how clipq makes them at first use; the artifact's own recipe
            where it keeps the float graphs beside what it makes of them.

    >>> FloatSettings("deploy/image-fp32.onnx", "deploy/text-fp32.onnx").image
    'deploy/image-fp32.onnx'
    """

    image: Text = ""
    text: Text = ""
    recipe: Text = ""


@dataclass(frozen=True, slots=True)
class ArtifactSettings:
    """One `[[artifacts]]` table. Paths are relative to the settings file.

    Args:
        name: as in case ids, in the place of a quantizer.
        model: the FP32 model that it is judged against, and the only one that it meets.
        runtime: registered name of what runs it.
        image: file of the image tower; of the runtime ``torch``, ``FILE.py:FUNCTION``.
        text: file of the text tower, or ``fp32`` where only the image tower ships.
        head: in the place of `text`: a file of class embeddings.
        recipe: in the place of files: how clipq makes them at first use.
        format: number format, for margins; "" for the format class ``custom``.
        batch: samples per call, as deployed; 0 for `batch_size` of the settings.
        session: how the runtime is asked to run.
        io: what the graphs take and return.
        float: the float graphs that it was made from; they become a candidate of their own.
        simulation: the quantizer that simulates it; "" for the matrix's first of its format.
        variants: further sessions, each a candidate; what one does not give is `session`'s.
        logit_scale: whether the artifact is also judged with a tuned logit scale.
        part_of: of a float or variant candidate: the artifact that it belongs to.

    >>> artifact = ArtifactSettings("ort-int8", "b32", "onnxruntime", image="i.onnx", text="t.onnx",
    ...     variants={"oldest-cpu": SessionSettings(env={"ONEDNN_MAX_CPU_ISA": "AVX2"})})
    >>> [each.name for each in artifact.candidates()]
    ['ort-int8', 'ort-int8-oldest-cpu']
    """

    name: _ArtifactName
    model: Name
    runtime: Text
    image: Text = ""
    text: Text = ""
    head: Text = ""
    recipe: Text = ""
    format: Text = ""
    batch: Annotated[int, whole(0, LARGEST_BATCH)] = 0
    session: SessionSettings = SessionSettings()
    io: IoSettings = IoSettings()
    float: FloatSettings | None = None
    simulation: Text = ""
    variants: Annotated[
        Mapping[_ArtifactName, SessionSettings], Meta(description=f"sessions by name: {_NAME}")
    ] = field(default_factory=dict)
    logit_scale: bool = False
    part_of: Text = ""

    @property
    def is_float(self) -> bool:
        """Whether these are the float graphs that another artifact was made from."""
        return bool(self.part_of) and self.name == f"{self.part_of}-float"

    @property
    def towers(self) -> str:
        """Towers that it replaces: ``both``, or ``vision`` where the text tower is FP32's."""
        return "vision" if self.text == FP32_TOWER else "both"

    @property
    def is_stored(self) -> bool:
        """Whether its files hold what ships: no code that makes it, no features that came of it."""
        return self.runtime != BROUGHT and CODE not in self.image

    def contradiction(self) -> tuple[str, str]:
        """Return what of this table contradicts itself, and how to mend it; ("", "") if nothing."""
        others = [key for key in ("image", "text", "head") if getattr(self, key)]
        texts = "text = a file, text = 'fp32' (the text tower does not ship), or head = a file"
        if self.recipe and others:
            return f"both recipe and {others[0]}", "give files, or a recipe that makes them"
        if self.recipe and self.io != IoSettings():
            return "both recipe and io", "remove io: a recipe says itself what its graphs take"
        if not self.recipe and not self.image:
            return "neither image nor recipe", "image = a file, or recipe = how clipq makes it"
        if CODE in self.text:
            hint = "the function that `image` names makes both towers"
            return f"text = {self.text!r}, which is code", hint
        if self.text and self.head:
            return "both text and head", f"give one of them: {texts}"
        if not self.recipe and not self.text and not self.head and CODE not in self.image:
            return "no text tower", texts
        if self.logit_scale and self.head:
            hint = "give the text tower: a logit scale is tuned on captions as well as images"
            return "both logit_scale and head", hint
        if self.float is not None and bool(self.float.image) == bool(self.float.recipe):
            return "float without one of image and recipe", "float = { image = ..., text = ... }"
        asked = replace(self.session, threads=0) != SessionSettings() or bool(self.variants)
        if self.runtime == BROUGHT and asked:
            problem = f"a session or variants with runtime {BROUGHT!r}, which runs nothing"
            return problem, "remove them: how features were made cannot be told from here"
        if "float" in self.variants:
            return "a variant called 'float'", "call it otherwise: NAME-float are the float graphs"
        if self.name == FP32_TOWER:
            return f"name = {FP32_TOWER!r}", "it is the reserved name of the unquantized reference"
        return "", ""

    def candidates(self) -> Iterator[ArtifactSettings]:
        """Yield the artifact itself, the float graphs it was made from, and its variants."""
        yield replace(self, float=None, variants={})
        if self.float is not None:
            yield replace(
                self,
                name=f"{self.name}-float",
                image=self.float.image,
                text="" if self.float.recipe else self.float.text or self.text,
                recipe=self.float.recipe,
                format="",
                simulation="",
                float=None,
                variants={},
                logit_scale=False,
                part_of=self.name,
            )
        for name, session in self.variants.items():
            yield replace(
                self,
                name=f"{self.name}-{name}",
                session=_over(session, self.session),
                float=None,
                variants={},
                logit_scale=False,
                part_of=self.name,
            )


def artifact_table() -> Any:
    """Return the shape of an `[[artifacts]]` table as it is written.

    >>> "part_of" in artifact_table().__annotations__, "io" in artifact_table().__annotations__
    (False, True)
    """
    written = (name for name in ArtifactSettings.__slots__ if name != "part_of")
    return table("artifact", keys(ArtifactSettings, *written))


def read_artifacts(
    tables: Sequence[Mapping[str, Any]], models: Sequence[str], document: Document, place: str
) -> Iterator[ArtifactSettings]:
    """Yield the candidates of all `[[artifacts]]` tables of a settings file, in its order.

    Args:
        tables: each of the shape of `artifact_table`.
        models: names of the file's models; empty where it need not have any.
        document: the file.
        place: of the table that holds them; "" for the top.

    Raises:
        SettingsError: one contradicts itself or names no model, or two candidates have one name.

    >>> from pathlib import Path
    >>> from clipq.errors import SettingsError
    >>> document = Document(Path("clipq.toml"), "TOML", SettingsError, "")
    >>> table = {"name": "ort", "model": "vit", "runtime": "onnxruntime", "recipe": "mine"}
    >>> [each.name for each in read_artifacts([table], ["vit"], document, "")]
    ['ort']
    """
    names: set[tuple[str, str]] = set()
    for at, given in enumerate(tables):
        where = f"{place}.artifacts[{at}]".strip(".")
        artifact = ArtifactSettings(**given)
        problem, fix = artifact.contradiction()
        if not problem and models and artifact.model not in models:
            problem, fix = f"unknown model {artifact.model!r}", did_you_mean(artifact.model, models)
        if problem:
            raise document.fail(where, problem, fix)
        for candidate in artifact.candidates():
            if (artifact.model, candidate.name) in names:
                raise document.fail(
                    where,
                    f"two candidates of {artifact.model!r} are called {candidate.name!r}",
                    "float graphs are called NAME-float, variants NAME-VARIANT",
                )
            names.add((artifact.model, candidate.name))
            yield candidate


def _over(own: SessionSettings, shared: SessionSettings) -> SessionSettings:
    """Return a session in which what `own` does not say is as in `shared`."""
    return SessionSettings(
        threads=own.threads or shared.threads,
        precision=own.precision or shared.precision,
        provider=own.provider or shared.provider,
        env={**shared.env, **own.env},
        options={**shared.options, **own.options},
    )

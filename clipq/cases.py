"""What is judged, as values: a candidate, its cells, and the cases of each cell.

    candidate   vit-clean/rtn:w8a8           what somebody wants to release: a model and a quantizer
    cell        vit-clean/rtn:w8a8/id        a candidate on a probe: what is encoded once
    case        vit-clean/rtn:w8a8/id.ece    a cell and a metric: what the gate judges

Each prints as the text that its `parse` reads. A quantizer's own text may hold slashes and dots
(``rtn:w4,exclude=blocks.0/*``), and a probe's name dots; names of models and probes hold no slash,
and those of metrics neither, so that the text is taken apart from both of its ends.

Any quantizer's or artifact's text, and that of the reference, may end in ``+logit-scale``: the same
towers, and a logit scale tuned on image-caption pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clipq.errors import SettingsError

__all__ = ["FP32", "TUNED", "Candidate", "Case", "Cell", "split_key"]

FP32 = "fp32"
"""The reserved name of the unquantized reference."""
TUNED = "+logit-scale"
"""The end of the text of a candidate whose logit scale is tuned."""


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A model in the form that a quantizer gives it.

    >>> Candidate.parse("vit-clean/rtn:w4,exclude=blocks.0/*")
    Candidate(model='vit-clean', quantizer='rtn:w4,exclude=blocks.0/*')
    """

    model: str
    quantizer: str

    @classmethod
    def parse(cls, text: str) -> Candidate:
        """Read ``MODEL/QUANTIZER``.

        Raises:
            SettingsError: a part is missing.
        """
        model, _, quantizer = text.partition("/")
        if not model or not quantizer:
            raise SettingsError(
                f"{text!r} names no model and quantizer",
                hint="write MODEL/QUANTIZER as in case ids, for example vit-b-32/rtn:w8a8",
            )
        return cls(model, quantizer)

    def __str__(self) -> str:
        return f"{self.model}/{self.quantizer}"

    @property
    def is_reference(self) -> bool:
        """Whether this is FP32 itself, its logit scale as it is."""
        return self.quantizer == FP32

    @property
    def reference(self) -> Candidate:
        """The same model in FP32."""
        return replace(self, quantizer=FP32)

    @property
    def tuned(self) -> bool:
        """Whether its logit scale is tuned."""
        return self.quantizer.endswith(TUNED)

    @property
    def base(self) -> Candidate:
        """The candidate whose towers these are: itself, where no logit scale is tuned.

        >>> tuned = Candidate("vit-clean", "rtn:w4a8+logit-scale")
        >>> tuned.tuned, str(tuned.base), tuned.base.base == tuned.base
        (True, 'vit-clean/rtn:w4a8', True)
        """
        if not self.tuned:
            return self  # asked of every case of a matrix, several times
        return replace(self, quantizer=self.quantizer.removesuffix(TUNED))

    def on(self, probe: str) -> Cell:
        """Return this candidate's cell on a probe."""
        return Cell(self.model, self.quantizer, probe)


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """A candidate on a probe.

    >>> cell = Cell.parse("vit-clean/rtn:w8a8/id")
    >>> str(cell.reference), str(cell.on("digits")), cell.case("ece").id
    ('vit-clean/fp32/id', 'vit-clean/rtn:w8a8/digits', 'vit-clean/rtn:w8a8/id.ece')
    """

    model: str
    quantizer: str
    probe: str

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Read ``MODEL/QUANTIZER/PROBE``.

        Raises:
            SettingsError: a part is missing.
        """
        candidate, _, probe = text.rpartition("/")
        model, _, quantizer = candidate.partition("/")
        if not model or not quantizer or not probe:
            raise SettingsError(
                f"{text!r} is no cell",
                hint="write MODEL/QUANTIZER/PROBE, for example vit-b-32/rtn:w8a8/id",
            )
        return cls(model, quantizer, probe)

    def __str__(self) -> str:
        return f"{self.model}/{self.quantizer}/{self.probe}"

    @property
    def candidate(self) -> Candidate:
        """Its model and quantizer."""
        return Candidate(self.model, self.quantizer)

    @property
    def reference(self) -> Cell:
        """FP32 on the same probe."""
        return replace(self, quantizer=FP32)

    @property
    def base(self) -> Cell:
        """The cell of the candidate whose towers these are, which encodes for both."""
        return self.candidate.base.on(self.probe)

    def on(self, probe: str) -> Cell:
        """Return the same candidate's cell on another probe."""
        return replace(self, probe=probe)

    def case(self, metric: str) -> Case:
        """Return the case of a metric."""
        return Case(self, metric)


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """A cell and a metric: is this metric, on this probe, as good as FP32's?

    >>> case = Case.parse("vit-clean/rtn:w8a8/id.ece")
    >>> case.cell, case.metric, case.key
    (Cell(model='vit-clean', quantizer='rtn:w8a8', probe='id'), 'ece', 'id.ece')
    """

    cell: Cell
    metric: str

    @classmethod
    def parse(cls, text: str) -> Case:
        """Read a case id, ``MODEL/QUANTIZER/PROBE.METRIC``.

        Raises:
            SettingsError: a part is missing.
        """
        candidate, _, key = text.rpartition("/")
        model, _, quantizer = candidate.partition("/")
        probe, metric = split_key(key)
        if not model or not quantizer or not probe or not metric:
            raise SettingsError(
                f"{text!r} is no case id",
                hint="write MODEL/QUANTIZER/PROBE.METRIC, for example vit-b-32/rtn:w8a8/id.ece; "
                "`clipq list cases` shows them",
            )
        return cls(Cell(model, quantizer, probe), metric)

    def __str__(self) -> str:
        return f"{self.cell}.{self.metric}"

    @property
    def id(self) -> str:
        """The case's text form: how reports, waivers and baselines name it."""
        return str(self)

    @property
    def model(self) -> str:
        """Name of its model."""
        return self.cell.model

    @property
    def quantizer(self) -> str:
        """Text of its quantizer."""
        return self.cell.quantizer

    @property
    def probe(self) -> str:
        """Name of its probe."""
        return self.cell.probe

    @property
    def candidate(self) -> Candidate:
        """Its model and quantizer."""
        return self.cell.candidate

    @property
    def key(self) -> str:
        """``PROBE.METRIC``: what a model's baseline calls the value."""
        return f"{self.cell.probe}.{self.metric}"


def split_key(key: str) -> tuple[str, str]:
    """Return probe and metric of a baseline's key, ``PROBE.METRIC``; "" for what is missing.

    >>> split_key("imagenet-c.v2.top1")
    ('imagenet-c.v2', 'top1')
    """
    probe, _, metric = key.rpartition(".")
    return probe, metric

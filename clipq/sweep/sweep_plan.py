"""A plan of many units, as `plan.toml` says it: read strictly, expanded lazily, model by model.

docs/sweep.md tells the language. Nothing here imports torch or any of clipq's own methods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from clipq.cases import Candidate
from clipq.errors import SweepError
from clipq.provenance import digest
from clipq.settings import Settings
from clipq.shapes import Document, Meta, Text, Texts, one_of
from clipq.sweep.axes import Axes, resolve
from clipq.sweep.expansion import Planned, expand
from clipq.sweep.sweep_blocks import SweepBlock
from clipq.sweep.sweep_cells import cell_metrics, cells_of
from clipq.sweep.sweep_estimate import Kind, kind_of
from clipq.sweep.thrift import Thrift
from clipq.sweep.units import Unit

__all__ = ["MOST_CELLS", "SCHEMA", "Survey", "SweepPlan", "read_plan"]

SCHEMA = "clipq-sweep/1"
MOST_CELLS = 1_000_000
"""Metric cells beyond which a plan is taken for a mistake, unless it is said to be none."""
_MOST_COMBINATIONS = 10 * MOST_CELLS  # that filters may be asked about

_Blocks = Annotated[
    tuple[SweepBlock, ...], Meta(min_length=1, description="one or more tables [[sweep]]")
]


@dataclass(frozen=True, slots=True)
class _File:
    """What a plan's file holds."""

    schema: Annotated[str, one_of(SCHEMA)]
    settings: Text
    sweep: _Blocks
    probes: Texts = ("*",)
    metrics: Texts = ("*",)
    thrift: Thrift | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """What a plan comes to.

    Args:
        units: how many.
        cells: metric cells of all of them.
        by_kind: units of each model and method.
        seeds: units by why they have the seeds that they have.
        merged: combinations that came to a unit that there was: the quantizer looks at no data.
        excluded: units of which the settings exclude every cell, and which are left out.
    """

    units: int
    cells: int
    by_kind: Mapping[Kind, int]
    seeds: Mapping[str, int]
    merged: int
    excluded: int

    @property
    def by_model(self) -> dict[str, int]:
        """Units of each model."""
        found: Counter[str] = Counter()
        for (model, _), count in self.by_kind.items():
            found[model] += count
        return dict(found)


@dataclass(slots=True)
class _Apart:
    """How many combinations became no unit, for each reason that is no mistake."""

    merged: int = 0
    excluded: int = 0


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """A plan.

    Args:
        path: of its file.
        settings: path of the settings that models, probes and statistics come from.
        blocks: its `[[sweep]]`.
        probes: globs; which of the settings' probes are evaluated.
        metrics: globs; which of their metrics.
        plain: the whole file as TOML has it, to be compared with another.
        thrift: which later seeds are done; None for all.

    >>> from clipq.settings import load_settings
    >>> block = SweepBlock(("vit-*",), ("rtn", "quarot"), ("w8",), seeds=2)
    >>> plan = SweepPlan(Path("plan.toml"), Path("clipq.toml"), (block,), probes=("id",))
    >>> settings = load_settings(plan.settings)
    >>> survey = plan.survey(settings)
    >>> survey.units, dict(survey.seeds)
    (6, {'nothing random changes': 2, 'the method draws or is trained': 4})
    >>> [str(unit) for unit in plan.units(settings, lambda model, method: "")][:3]
    ['vit-clean/rtn:w8', 'vit-clean/quarot:w8,seed=0', 'vit-clean/quarot:w8,seed=1']
    """

    path: Path
    settings: Path
    blocks: tuple[SweepBlock, ...]
    probes: Texts = ("*",)
    metrics: Texts = ("*",)
    plain: Mapping[str, Any] = field(default_factory=dict)
    thrift: Thrift | None = None

    @property
    def digest(self) -> str:
        """The sha256 (hex) of what the file says, however it is laid out."""
        return digest(self.plain)

    def survey(self, settings: Settings, *, most: int | None = MOST_CELLS) -> Survey:
        """Walk the plan once, hold it against the settings, and count.

        Args:
            settings: that it is about.
            most: metric cells beyond which it is refused; None for any number.

        Raises:
            SweepError: an unknown name, an empty product, duplicates, filters that contradict each
                other or match nothing, or more cells than `most`.
        """
        metrics = cell_metrics(settings, self.probes, self.metrics)
        if self.thrift is not None:
            self.thrift.check(metrics)
        axes = self._axes(settings)
        size = sum(one.size * len(one.seeds or (0,)) for one in axes)
        each = sum(map(len, metrics.values()))
        if most is not None and sum(one.size for one in axes) > _MOST_COMBINATIONS:
            raise self._too_many(most, size * each)
        cells = units = 0
        by_kind: Counter[Kind] = Counter()
        seeds: Counter[str] = Counter()
        apart = _Apart()
        for planned, own in self._walk(axes, settings, metrics, apart):
            units += 1
            cells += own
            by_kind[kind_of(f"{planned.model}/{planned.quantizer}")] += 1
            seeds[planned.reason] += 1
            if most is not None and cells > most:
                raise self._too_many(most, size * each)
        if not units:
            raise SweepError(
                f"{self.path}: {settings.path} excludes every cell of every unit",
                hint="shorten `exclude` of [matrix], or name other quantizers",
            )
        return Survey(units, cells, dict(by_kind), dict(seeds), apart.merged, apart.excluded)

    def units(self, settings: Settings, context: Callable[[str, str], str]) -> Iterator[Unit]:
        """Yield the units, model by model, each once, in the same order every time.

        What is wrong with a plan is raised before the first; how large it may be is the business of
        `survey`, which is to be asked first.

        Args:
            settings: that it is about.
            context: of a model and a method (an artifact's name): digest of all else that decides a
                result; asked once for each pair.

        Raises:
            SweepError: as of `survey`.
        """
        self.survey(settings, most=None)
        known: dict[tuple[str, str], str] = {}
        metrics = cell_metrics(settings, self.probes, self.metrics)
        for planned, _ in self._walk(self._axes(settings), settings, metrics, _Apart()):
            pair = planned.model, planned.method
            if pair not in known:
                known[pair] = context(*pair)
            yield Unit(planned.model, planned.quantizer, planned.calibration, known[pair])

    def _axes(self, settings: Settings) -> list[Axes]:
        return [
            resolve(block, settings, f"{self.path}, [[sweep]] number {at + 1}")
            for at, block in enumerate(self.blocks)
        ]

    def _walk(
        self,
        axes: list[Axes],
        settings: Settings,
        metrics: Mapping[str, tuple[str, ...]],
        apart: _Apart,
    ) -> Iterator[tuple[Planned, int]]:
        """Yield what is planned, with its metric cells; at the end, refuse what came to nothing."""
        artifacts = frozenset(artifact.name for artifact in settings.artifacts)
        used: set[tuple[str, int]] = set()
        fruitful: set[str] = set()
        for model in (model.name for model in settings.models):
            seen: dict[tuple[str, int, int], tuple[str, bool]] = {}
            for own in axes:
                if model not in own.models:
                    continue
                for values in own.combinations(model):
                    if not _kept(own, values, used):
                        continue
                    for planned in expand(own, values, settings, artifacts=artifacts):
                        drawn = planned.calibration
                        key = planned.quantizer, drawn.samples, drawn.seed
                        other, alike = seen.get(key, ("", False))
                        if not other:
                            seen[key] = own.where, planned.merged
                            fruitful.add(own.where)
                            candidate = Candidate(model, planned.quantizer)
                            if cells := cells_of(candidate, settings, metrics):
                                yield planned, cells
                            else:
                                apart.excluded += 1
                        elif other == own.where and (alike or planned.merged):
                            apart.merged += 1
                        else:
                            raise _twice(planned, other, own.where)
        for own in axes:
            _refuse_idle(own, used, fruitful=own.where in fruitful)

    def _too_many(self, most: int, bound: int) -> SweepError:
        return SweepError(
            f"{self.path} plans more than {most:,} metric cells; its products alone, without "
            f"filters and conditional axes, have {bound:,}",
            hint="shorten an axis or filter; if it is meant so, pass --yes",
        )


def _kept(axes: Axes, values: Mapping[str, str], used: set[tuple[str, int]]) -> bool:
    """Return whether filters leave a combination; note which of them match anything at all."""
    block, kept = axes.block, True
    for at, when in enumerate(block.when):
        if (f"{axes.where}, when", at) not in used and when.match(values):
            used.add((f"{axes.where}, when", at))
    if block.only:
        matching = [at for at, only in enumerate(block.only) if only.match(values)]
        used.update((f"{axes.where}, only", at) for at in matching)
        kept = bool(matching)
    for at, skip in enumerate(block.skip):
        if skip.match(values):
            used.add((f"{axes.where}, skip", at))
            kept = False
    return kept


def _refuse_idle(axes: Axes, used: set[tuple[str, int]], *, fruitful: bool) -> None:
    block = axes.block
    for kind, count in (
        ("when", len(block.when)),
        ("only", len(block.only)),
        ("skip", len(block.skip)),
    ):
        for at in range(count):
            if (f"{axes.where}, {kind}", at) not in used:
                raise SweepError(
                    f"{axes.where}: [[sweep.{kind}]] number {at + 1} matches no combination",
                    hint="correct its match: texts are globs, and every axis in it must be one of "
                    "the block; or delete it",
                )
    if not fruitful:
        raise SweepError(
            f"{axes.where}: its filters leave nothing",
            hint="`only` keeps what one of its matches takes, `skip` then leaves out: they "
            "contradict each other",
        )


def _twice(planned: Planned, first: str, second: str) -> SweepError:
    unit = Unit(planned.model, planned.quantizer, planned.calibration)
    here = "itself" if first == second else f"{first.rpartition(', ')[2]}"
    return SweepError(
        f"{second} plans {unit} a second time, after {here}",
        hint="narrow one of them, or leave it out with a [[sweep.skip]]",
    )


def read_plan(path: Path) -> SweepPlan:
    """Read a plan.

    Args:
        path: of its file; the settings' path in it is relative to its folder.

    Raises:
        SweepError: it is missing, no TOML, or says something that no plan says.

    >>> read_plan(Path("nowhere.toml"))
    Traceback (most recent call last):
    clipq.errors.SweepError: nowhere.toml cannot be read as TOML: ...
    """
    if path.is_dir():
        raise SweepError(
            f"{path} is a folder, and a plan is a file",
            hint="name the plan's file, e.g. plan.toml; --folder names where its sweep is",
        )
    document = Document(path, "TOML", SweepError)
    plain = document.parse()
    found = document.shaped(plain, _File)
    return SweepPlan(
        path=path,
        settings=path.parent / found.settings,
        blocks=found.sweep,
        probes=found.probes,
        metrics=found.metrics,
        plain=plain,
        thrift=found.thrift,
    )

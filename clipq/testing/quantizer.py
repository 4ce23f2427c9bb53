"""Invariants of a quantizer, checked on small CLIPs."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from clipq.errors import ClipqError
from clipq.evaluation.batch_dependence import ARRANGEMENTS, arrange, batch_differences
from clipq.quant import (
    Calibration,
    Format,
    QuantizerSpec,
    Towers,
    WeightFormat,
    method_code_hash,
    method_version,
)
from clipq.quant.apply import Quantized, apply_method
from clipq.quant.claims import chooses_layers, declared_exceptions
from clipq.quant.methods import find_method
from clipq.quant.modules import QuantizedConv2d, QuantizedLinear
from clipq.quant.nearest import FLOOR_DB, measure_nearness
from clipq.testing.checks import Check, NotRun, expect
from clipq.testing.models import SmallInputs, small_clip
from clipq.testing.multiplied import inputs_of, weight_pairs
from clipq.testing.rounding_checks import check_rounding
from clipq.testing.rounding_direction import rounding_lean
from clipq.testing.scale_axis import check_scale_axis
from clipq.testing.strategies import moderate_floats

__all__ = ["check_quantizer"]

_LAYER = "visual.transformer.resblocks.0.mlp.c_fc"
_SEEDS = range(5)
_BATCH = 40  # more than a tile of 32 rows, and no multiple of one


def check_quantizer(
    quantizer: QuantizerSpec | str,
    *,
    families: Sequence[str] = ("vit",),
    nearest: bool = False,
    beats: str | None = None,
) -> Iterator[Check]:
    """Yield the invariants that any quantizer must keep, as test cases.

    Args:
        quantizer: the quantizer, or its text, such as ``"mine:w4a8,steps=9"``; its method is
            registered.
        families: small CLIPs (`SMALL_CLIPS`) that it must be able to quantize.
        nearest: the quantizer promises to round each weight of a linear layer to the nearest point
            of the grid that its format defines; all of `check_rounding` is then checked through a
            layer of a model.
        beats: the text of a quantizer that this one promises to be closer to FP32 than, on most
            models.

    Raises:
        ClipqError: the text is none, or the method is unknown.

    >>> checks = check_quantizer("rtn:w8a8")
    >>> next(checks)()
    """
    spec = QuantizerSpec.parse(quantizer) if isinstance(quantizer, str) else quantizer
    method_version(spec)
    for family in families:
        suite = _Quantizer(spec, family)
        per_family: list[Callable[[], None]] = [
            suite.returns_a_finite_clip,
            suite.leaves_the_original_alone,
            suite.is_deterministic,
            suite.survives_copies_and_state_dicts,
            suite.encodes_each_sample_by_itself,
            suite.lets_gradients_through,
            suite.keeps_half_precision_or_refuses,
            suite.covers_the_arithmetic,
            suite.leaves_the_other_tower_alone,
        ]
        for check in per_family:
            yield Check(f"{spec}-{family}", check.__name__.replace("_", "-"), check)
    suite = _Quantizer(spec, families[0])
    once: list[Callable[[], None]] = [
        suite.has_an_identity,
        suite.refuses_unknown_options,
        suite.takes_one_sample_and_refuses_none,
        suite.shows_nan_and_infinity,
        suite.takes_tied_and_shared_weights_or_refuses,
        suite.refuses_what_is_quantized_already,
        suite.stays_near_rounding_to_nearest,
        suite.rounds_without_drift,
    ]
    if spec.format is not None:
        once.append(suite.scales_along_the_claimed_axis)
        once.append(suite.computes_what_it_claims)
        once.append(suite.has_as_many_levels_as_codes)
        if spec.format.weight.number == "int" and spec.format.weight.bits < 8:
            once.append(suite.improves_with_a_bit)
    if beats is not None:
        once.append(lambda: suite.beats(beats))
        once[-1].__name__ = f"beats_{beats}"
    for check in once:
        yield Check(str(spec), check.__name__.replace("_", "-"), check)
    if nearest and spec.format is not None:
        for check in check_rounding(
            _through_a_model(spec),
            spec.format.weight,
            elements=moderate_floats(),
            examples=5,
            columns=64,
        ):
            yield Check(str(spec), check.invariant, check.run)


class _Quantizer:
    def __init__(self, spec: QuantizerSpec, family: str) -> None:
        self.spec, self.family, self.inputs = spec, family, SmallInputs()

    def model(self, seed: int = 0) -> nn.Module:
        return small_clip(self.family, seed=seed)

    def quantized(
        self,
        model: nn.Module | None = None,
        *,
        spec: QuantizerSpec | None = None,
        calibration: Calibration | None = None,
    ) -> nn.Module:
        return self.applied(model, spec=spec, calibration=calibration).model

    def applied(
        self,
        model: nn.Module | None = None,
        *,
        spec: QuantizerSpec | None = None,
        calibration: Calibration | None = None,
        compare: bool = False,
    ) -> Quantized:
        return apply_method(
            model or self.model(),
            spec or self.spec,
            calibration or self.inputs.calibration,
            compare=compare,
        )

    def declared(self, kind: str) -> None:
        reason = declared_exceptions(find_method(self.spec), self.spec).get(kind)
        if reason is not None:
            raise NotRun(f"{self.spec.method} declares an exception, {kind}: {reason}")

    def returns_a_finite_clip(self) -> None:
        model = self.model()
        quantized = self.quantized(model)
        expect(not quantized.training, "the quantized model is in training mode")
        for mine, theirs in zip(
            self.inputs.encode(quantized), self.inputs.encode(model), strict=True
        ):
            expect(mine.shape == theirs.shape, f"features {theirs.shape} became {mine.shape}")
            expect(mine.dtype == theirs.dtype, f"features {theirs.dtype} became {mine.dtype}")
            expect(mine.isfinite().all(), "features of finite inputs are not finite")

    def leaves_the_original_alone(self) -> None:
        model = self.model().train()
        before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
        trainable = [p.requires_grad for p in model.parameters()]
        quantized = self.quantized(model)
        expect(torch.equal(torch.get_rng_state(), random), "the global random state moved")
        expect(all(m.training for m in model.modules()), "the original left training mode")
        expect([p.requires_grad for p in model.parameters()] == trainable, "requires_grad changed")
        after = model.state_dict()
        expect(before.keys() == after.keys(), "the original's parameters changed their names")
        for name, tensor in before.items():
            expect(torch.equal(tensor, after[name]), f"{name} of the original changed")
        mine = {p.data_ptr() for p in quantized.parameters() if p.numel()}
        theirs = {p.data_ptr() for p in model.parameters() if p.numel()}
        expect(not mine & theirs, "the quantized model shares memory with the original")

    def is_deterministic(self) -> None:
        torch.manual_seed(1)
        first = self.inputs.encode(self.quantized())
        torch.manual_seed(2)
        second = self.inputs.encode(self.quantized())
        for one, other in zip(first, second, strict=True):
            expect(torch.equal(one, other), "quantizing twice gives different features")

    def survives_copies_and_state_dicts(self) -> None:
        quantized = self.quantized()
        features = self.inputs.encode(quantized)
        twin = copy.deepcopy(quantized)
        self._expect_same(self.inputs.encode(twin), features, "a deep copy")
        other = self.quantized(self.model(seed=1))
        other.load_state_dict(quantized.state_dict())
        self._expect_same(
            self.inputs.encode(other), features, "another model that loaded the state dict"
        )
        for tensor in twin.state_dict().values():
            tensor.zero_()
        self._expect_same(
            self.inputs.encode(quantized), features, "the model beside its changed copy"
        )

    def encodes_each_sample_by_itself(self) -> None:
        inputs, original = SmallInputs(count=_BATCH), self.model()
        quantized = self.quantized(original)
        for what, samples in (("image", inputs.images), ("text", inputs.texts)):
            exact, found = (
                _arranged(getattr(model, f"encode_{what}"), samples)
                for model in (original, quantized)
            )
            for difference in batch_differences(found, exact):
                expect(
                    not difference.depends,
                    f"features of {what}s depend on batch mates: "
                    f"{ARRANGEMENTS[difference.arrangement]} they move by {difference.moved:.2g} "
                    f"of their length, more than {difference.accepted:.2g}",
                )

    def lets_gradients_through(self) -> None:
        if self.spec.towers == "text":
            return
        images = self.inputs.images.clone().requires_grad_()
        with torch.enable_grad():
            total: Tensor = self.quantized().encode_image(images).sum()  # type: ignore[operator]
            expect(total.requires_grad, "no gradient reaches the images")
            (grad,) = torch.autograd.grad(total, images)
        expect(grad.isfinite().all(), "a gradient of finite inputs is not finite")
        expect(bool(grad.abs().sum() > 0), "the gradient of the images is zero everywhere")

    def keeps_half_precision_or_refuses(self) -> None:
        model = self.model().bfloat16()
        try:
            quantized = self.quantized(model)
        except ClipqError:
            return
        for features in self.inputs.encode(quantized):
            expect(features.dtype == torch.bfloat16, f"bfloat16 became {features.dtype}")
            expect(features.isfinite().all(), "features of a bfloat16 model are not finite")

    def covers_the_arithmetic(self) -> None:
        self.declared("float")
        coverage = self.applied().coverage
        share = coverage.share
        chosen = {key for key, _ in self.spec.options} & {"exclude", "include", "ends", "table"}
        if share is not None and not chosen:  # None: modules of its own, which cannot be counted
            expect(share >= 0.99, f"{share:.1%} is quantized; not: {', '.join(coverage.uncovered)}")

    def leaves_the_other_tower_alone(self) -> None:
        model = self.model()
        images, texts = self.inputs.encode(model)
        both: tuple[tuple[Towers, Tensor, Tensor], ...] = (
            ("vision", images, texts),
            ("text", texts, images),
        )
        for towers, mine, other in both:
            spec = replace(self.spec, towers=towers)
            features = self.inputs.encode(self.quantized(model, spec=spec))
            changed, untouched = features if towers == "vision" else features[::-1]
            expect(torch.equal(untouched, other), f"@{towers} changed the other tower's features")
            expect(not torch.equal(changed, mine), f"@{towers} changed nothing in its tower")

    def has_an_identity(self) -> None:
        text = str(self.spec)
        expect(QuantizerSpec.parse(text) == self.spec, f"{text!r} does not parse back")
        expect(len(method_code_hash(self.spec)) == 64, "the method's code has no hash")

    def refuses_unknown_options(self) -> None:
        options = (*self.spec.options, ("no_such_option", "1"))
        try:
            self.quantized(spec=replace(self.spec, options=options))
        except ClipqError as error:
            expect("no_such_option" in str(error), f"an unknown option is not named: {error}")
            return
        expect(False, "an unknown option is accepted, so that a misspelled one has no effect")

    def takes_one_sample_and_refuses_none(self) -> None:
        images, texts = self.inputs.images[:1], self.inputs.texts[:1]
        one = Calibration(lambda: iter([images]), lambda: iter([texts]))
        for features in self.inputs.encode(self.quantized(calibration=one)):
            expect(features.isfinite().all(), "one calibration sample gives features not finite")
        try:
            self.quantized(calibration=Calibration(lambda: iter(()), lambda: iter(())))
        except ClipqError:
            return
        expect(False, "no calibration data are accepted without a word")

    def shows_nan_and_infinity(self) -> None:
        for value in (float("nan"), float("inf")):
            model = self.model()
            for tower in ("visual", None):
                weights = [
                    p
                    for name, p in model.named_parameters()
                    if p.dim() >= 2 and name.startswith("visual.") == (tower == "visual")
                ]
                weights[-1].data.flatten()[0] = value
            try:
                quantized = self.quantized(model)
            except ClipqError:
                continue
            finite = [bool(x.isfinite().all()) for x in self.inputs.encode(quantized)]
            expect(not all(finite), f"a weight of {value} disappears in finite features")

    def takes_tied_and_shared_weights_or_refuses(self) -> None:
        model = self.model()
        layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
        pairs = [
            (a, b)
            for i, a in enumerate(layers)
            for b in layers[i + 1 :]
            if a.weight.shape == b.weight.shape
        ]
        if not pairs:
            return
        first, second = pairs[0]
        second.weight = first.weight
        try:
            quantized = self.quantized(model)
        except ClipqError:
            return
        for features in self.inputs.encode(quantized):
            expect(features.isfinite().all(), "tied weights give features that are not finite")

    def refuses_what_is_quantized_already(self) -> None:
        once = self.quantized(spec=QuantizerSpec.parse("rtn:w8"))
        try:
            self.quantized(once)
        except ClipqError:
            return
        expect(False, "a quantized model is quantized again without a word")

    def computes_what_it_claims(self) -> None:
        made = self.applied(compare=True)
        problems = list(made.claim.contradictions) if made.claim is not None else []
        problems += made.nearness.pretences() if made.nearness is not None else []
        expect(not problems, f"{self.spec} is not what its format says: {'; '.join(problems)}")

    def stays_near_rounding_to_nearest(self) -> None:
        self.declared("nearest")
        below: dict[str, list[float]] = {}
        for seed in _SEEDS[:3]:
            model = self.model(seed)
            made = self.applied(model, compare=True)
            found = made.nearness
            if found is None and self.spec.format is not None:
                formats = {self.spec.towers: self.spec.format}
                found = measure_nearness(model, made.model, formats, self.inputs.calibration)
            if found is None:
                raise NotRun("its bits are not known, or rounding to nearest cannot have them")
            for tower, own in found.own.items():
                below.setdefault(tower, []).append(found.nearest[tower] - own)
        for tower, values in below.items():
            median = statistics.median(values)
            expect(
                median <= FLOOR_DB,
                f"features of the {tower} tower lie {median:.1f} dB below those of rounding to "
                f"nearest, more than {FLOOR_DB:.0f} dB",
            )

    def rounds_without_drift(self) -> None:
        self.declared("nearest")
        model = self.model()
        quantized = self.quantized(model)
        size = self.spec.format.weight.granularity if self.spec.format is not None else "channel"
        found = [
            ("weights", name, _blocks(before, size), _blocks(after, size))
            for name, before, after in weight_pairs(model, quantized, self.inputs)
        ]
        found += [("inputs", *pair) for pair in inputs_of(quantized, self.inputs)]
        leans = [(what, name, rounding_lean(one, other)) for what, name, one, other in found]
        if all(lean is None for _, _, lean in leans):
            raise NotRun("no weight, nor input, can be compared with what it was rounded from")
        for what, name, lean in leans:
            said = "" if lean is None else lean.said
            expect(not said, f"{what} of {name} are rounded {said}, where another level is nearer")

    def scales_along_the_claimed_axis(self) -> None:
        self.declared("levels")
        if chooses_layers(self.spec):
            raise NotRun("its options give layers formats of their own")
        check_scale_axis(_require(self.spec.format), self.model, self.quantized, self.inputs)

    def has_as_many_levels_as_codes(self) -> None:
        number_format = _require(self.spec.format).weight
        if number_format.granularity == "tensor" or "table" in dict(self.spec.options):
            return
        for name, module in self.quantized().named_modules():
            if not isinstance(module, QuantizedLinear | QuantizedConv2d):
                continue
            for row in module.weight.detach().flatten(1):
                size = number_format.granularity
                for part in row.split(size) if isinstance(size, int) else [row]:
                    levels = len(part.unique())
                    expect(
                        levels <= 2**number_format.bits,
                        f"{name} has {levels} levels under one scale, "
                        f"more than 2^{number_format.bits}",
                    )

    def improves_with_a_bit(self) -> None:
        number_format = _require(self.spec.format)
        weight = replace(number_format.weight, bits=number_format.weight.bits + 1)
        finer = replace(self.spec, format=replace(number_format, weight=weight))
        self._expect_closer(finer, self.spec, f"{finer} is no closer to FP32 than {self.spec}")

    def beats(self, other: str) -> None:
        self._expect_closer(
            self.spec, QuantizerSpec.parse(other), f"{self.spec} is no closer to FP32 than {other}"
        )

    def _expect_closer(self, mine: QuantizerSpec, theirs: QuantizerSpec, complaint: str) -> None:
        ratios = []
        for seed in _SEEDS:
            model = self.model(seed)
            original = self.inputs.encode(model)
            errors = [
                sum(
                    float((f - o).norm() / o.norm())
                    for f, o in zip(
                        self.inputs.encode(self.quantized(model, spec=spec)), original, strict=True
                    )
                )
                for spec in (mine, theirs)
            ]
            expect(errors[1] > 0, f"{theirs} computes what FP32 computes: it quantizes nothing")
            ratios.append(errors[0] / errors[1])
        median = statistics.median(ratios)
        expect(median < 1, f"{complaint}: the median ratio of errors is {median:.3g}")

    @staticmethod
    def _expect_same(mine: Sequence[Tensor], theirs: Sequence[Tensor], what: str) -> None:
        for one, other in zip(mine, theirs, strict=True):
            expect(torch.equal(one, other), f"{what} computes other features")


def _require(number_format: Format | None) -> Format:
    expect(number_format is not None, "no format")
    return number_format  # type: ignore[return-value]


def _blocks(weight: Tensor, granularity: str | int) -> Tensor:
    """Return a weight (out, in) by what shares a scale, row by row."""
    size = granularity if isinstance(granularity, int) else weight.shape[1]
    return weight if weight.shape[1] % size else weight.reshape(-1, size)


def _arranged(encode: Callable[[Tensor], Tensor], samples: Tensor) -> dict[str, np.ndarray]:
    """Return a tower's features of the samples, by how they were arranged in batches."""

    def some(positions: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = encode(samples[torch.from_numpy(positions.copy())]).float().numpy()
        return found

    return arrange(some, some(np.arange(len(samples))))


def _through_a_model(spec: QuantizerSpec) -> Callable[[Tensor, WeightFormat], Tensor]:
    """Return what `spec` makes of a weight that lies in a linear layer of a model.

    The weight fills the layer's upper left corner; the zeros around it change no scale, since every
    range contains zero.
    """
    inputs = SmallInputs(count=1)

    def rounded(weight: Tensor, number_format: WeightFormat) -> Tensor:
        model = small_clip("vit").to(weight.dtype)
        layer = model.get_submodule(_LAYER)
        with torch.no_grad():
            layer.weight.zero_()  # type: ignore[operator]
            layer.weight[: weight.shape[0], : weight.shape[1]] = weight  # type: ignore[operator]
        chosen = replace(spec, format=replace(_require(spec.format), weight=number_format))
        made = apply_method(model, chosen, inputs.calibration, compare=False).model
        quantized = made.get_submodule(_LAYER).weight
        result: Tensor = quantized.detach()[: weight.shape[0], : weight.shape[1]]  # type: ignore[operator]
        return result.clone()

    return rounded

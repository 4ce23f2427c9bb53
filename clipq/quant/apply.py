"""Apply a quantizer to a model, distrusting the method: guard, inspect, count, compare."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipq.dependencies.file_reads import unwatched, watching
from clipq.errors import ClipqError, QuantizerError
from clipq.quant.claims import (
    Claim,
    ClaimCounter,
    chooses_layers,
    declared_exceptions,
    is_coarse,
)
from clipq.quant.code_identity import method_code
from clipq.quant.coverage import (
    Coverage,
    Operations,
    Product,
    count_operations,
    quantized_layers,
)
from clipq.quant.formats import Format
from clipq.quant.measured_format import FormatMeter
from clipq.quant.methods import Calibration, Method, find_method, is_builtin
from clipq.quant.nearest import Nearness, measure_nearness
from clipq.quant.spec import QuantizerSpec, Towers
from clipq.quant.storage import Storage, measure_storage, state_bytes
from clipq.quant.stored_weights import FloatRows, StoredWeights
from clipq.quant.towers import covers_images, covers_texts, image_batches, text_batches

__all__ = ["Quantized", "apply_method", "quantize"]

_WHOLE = 0.99  # of the weight-bearing arithmetic was seen: what is left has nothing to hide


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """A quantized model and how much of it is.

    Args:
        model: in eval mode, offers `encode_image` and `encode_text`.
        coverage: counted for one image and one text.
        storage: bytes of the model with its codes; None where a weight changed to what clipq does
            not know.
        claim: what was counted of the format; None where the method names none.
        nearness: how far from FP32 it is, beside rounding to nearest in its format or, where it
            names none, in as many bits as its weights and inputs are seen to have; None of a method
            of clipq's own, and where neither is known.
        exceptions: what the method declared when it was registered, and why.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> quantized = quantize(small_clip(), "rtn:w8@text", SmallInputs().calibration)
    >>> quantized.coverage.layers, quantized.coverage.uncovered, quantized.claim.held
    (13, (), 1.0)
    """

    model: nn.Module
    coverage: Coverage
    storage: Storage | None = None
    claim: Claim | None = None
    nearness: Nearness | None = None
    exceptions: Mapping[str, str] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Return coverage, storage and what was found of the claim as strict-JSON values."""
        plain = self.coverage.to_plain()
        if self.storage is not None:
            plain |= self.storage.to_plain()
        if self.claim is not None:
            plain["claim"] = self.claim.to_plain()
        if self.nearness is not None:
            plain["sqnr_db"] = self.nearness.to_plain()
        if self.exceptions:
            plain["exceptions"] = dict(self.exceptions)
        return plain


def quantize(model: nn.Module, spec: QuantizerSpec | str, calibration: Calibration) -> Quantized:
    """Return a quantized copy of `model`, which itself stays as it is.

    Args:
        model: an open_clip model.
        spec: what to quantize with, or its text.
        calibration: data for the method; its first image and text also serve to count coverage,
            so that every selected tower needs at least one batch.

    Raises:
        UnknownNameError: no method of that name.
        QuantizerError: the method failed, returned no usable model, changed the caller's model,
            quantized nothing, made something else than its format says, or read a file of its
            project that is no part of its identity.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> quantized = quantize(small_clip(), "rtn:w4g32", SmallInputs().calibration)
    >>> quantized.coverage.share, quantized.storage.weight_bits  # 4, and 32 / 32 for the scale
    (1.0, 5.0)
    """
    spec = QuantizerSpec.parse(spec)
    made = apply_method(model, spec, calibration)
    problems = list(made.claim.contradictions) if made.claim is not None else []
    if made.nearness is not None:
        problems += made.nearness.pretences()
        if "nearest" not in made.exceptions:
            problems += made.nearness.complaints()
    if problems:
        raise QuantizerError(
            f"quantizer {str(spec)!r} is not what "
            f"{'its format says' if spec.format else 'its bits allow'}: {'; '.join(problems)}",
            hint="correct the method, ask for the format that it makes, or declare what it does on "
            'purpose: @quantizers.register(..., exceptions={"float": "why"}), where "float", '
            '"levels" and "nearest" can be declared',
        )
    return made


def apply_method(
    model: nn.Module,
    spec: QuantizerSpec | str,
    calibration: Calibration,
    *,
    compare: bool = True,
) -> Quantized:
    """Return what `quantize` returns, contradictions of the format among it instead of raised.

    Args:
        model: as `quantize` takes it.
        spec: as well.
        calibration: as well.
        compare: whether to make a second model, rounded to nearest, for `Quantized.nearness`.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> apply_method(small_clip(), "rtn:w4", SmallInputs().calibration).claim.contradictions
    ()
    """
    spec = QuantizerSpec.parse(spec)
    if spec.tuned:
        raise QuantizerError(
            f"quantizer {str(spec)!r} tunes the logit scale, which takes image-caption pairs",
            hint=f"quantize by {str(spec.base)!r} alone, or call clipq.quantize, which takes pairs",
        )
    method = find_method(spec)
    exceptions = declared_exceptions(method, spec)
    before = _fingerprint(model)
    # Inference tensors could never take part in the gradients that probes ask for; autocast would
    # calibrate, and count, another arithmetic than the model's own.
    plain = torch.autocast(next(model.parameters()).device.type, enabled=False)
    with torch.inference_mode(False), torch.no_grad(), plain:
        private = copy.deepcopy(model).eval()
        samples = _Samples.first(private, spec, calibration)
        rows, foreign = FloatRows(), not is_builtin(method)
        float_operations = samples.count(private, spec, observe=rows.look if foreign else None)
        with watching() as read:
            result = _run(method, private, spec, calibration).eval()
            stored = StoredWeights(result, rows, spec.format.weight if spec.format else None)
            claim = None
            if spec.format is not None:
                coarse = is_coarse(model, spec.format.weight.bits)
                counter = ClaimCounter(spec, exceptions, coarse=coarse)
                looks = (counter.look, stored.look) if foreign else (counter.look,)
                operations = samples.count(result, spec, observe=_all_of(looks))
                claim = counter.result(result, float_operations)
                formats: dict[Towers, Format] = {spec.towers: spec.format}
            else:
                meter = FormatMeter()
                looks = (meter.look, stored.look) if foreign else (meter.look,)
                operations = samples.count(result, spec, observe=_all_of(looks))
                formats = meter.formats(spec.towers)
            coverage = _coverage(
                method, spec, result, operations, float_operations, claim, stored, exceptions
            )
        nearness = None
        if compare and formats and not is_builtin(method):
            with _encoding(spec):
                nearness = measure_nearness(model, result, formats, calibration)
            if nearness is not None and not _has_ceiling(model, spec, exceptions):
                nearness = replace(nearness, bits={})
    _refuse_undeclared(spec, read)
    if _fingerprint(model) != before:
        raise QuantizerError(
            f"quantizer {str(spec)!r} changed the caller's model",
            hint="a method may change only the copy it is given",
        )
    storage = measure_storage(result, state_bytes(model))
    if storage is None and foreign and not quantized_layers(result):
        storage = stored.storage(state_bytes(model))
    return Quantized(result, coverage, storage, claim, nearness, exceptions)


def _run(
    method: Method, model: nn.Module, spec: QuantizerSpec, calibration: Calibration
) -> nn.Module:
    given = replace(
        calibration,
        images=unwatched(calibration.images),
        texts=unwatched(calibration.texts),
    )
    try:
        result: object = method(model, spec, given)
    except ClipqError as error:
        raise QuantizerError(
            f"quantizer {str(spec)!r} failed: {error.problem}", hint=error.hint
        ) from error
    except Exception as error:
        raise QuantizerError(
            f"quantizer {str(spec)!r} failed: {type(error).__name__}: {error}",
            hint="the chained traceback shows where",
        ) from error
    if not isinstance(result, nn.Module) or not all(
        callable(getattr(result, name, None)) for name in ("encode_image", "encode_text")
    ):
        raise QuantizerError(
            f"quantizer {str(spec)!r} returned {type(result).__name__}, not a CLIP model",
            hint="return an nn.Module with encode_image and encode_text",
        )
    return result


def _has_ceiling(model: nn.Module, spec: QuantizerSpec, exceptions: Mapping[str, str]) -> bool:
    """Whether a format bounds how near to FP32 features are.

    It does not where layers may stay in float, nor where a weight has as few levels from the start.
    """
    if spec.format is None or chooses_layers(spec) or {"float", "levels"} & set(exceptions):
        return False
    return not is_coarse(model, spec.format.weight.bits + 2)


def _refuse_undeclared(spec: QuantizerSpec, read: set[Path]) -> None:
    """Refuse what an edited file would change without anybody noticing."""
    undeclared = method_code(spec).undeclared(read)
    if undeclared:
        more = f" and {len(undeclared) - 1} more files" if len(undeclared) > 1 else ""
        raise QuantizerError(
            f"quantizer {str(spec)!r} reads {undeclared[0]}{more}, which is no part of what "
            "identifies it: were it edited, old results would be used",
            hint="declare what is read, relative to the module: "
            f'@quantizers.register("{spec.method}", files=("{undeclared[0].name}",))',
        )


def _coverage(
    method: Method,
    spec: QuantizerSpec,
    result: nn.Module,
    operations: Operations,
    float_operations: Operations,
    claim: Claim | None,
    stored: StoredWeights,
    exceptions: Mapping[str, str],
) -> Coverage:
    ours = bool(quantized_layers(result)) or is_builtin(method)
    total = float_operations.weights.total()
    quantized: int | None = operations.quantized.total() if ours else None
    uncovered = tuple(sorted(operations.weights)) if ours else ()
    if not ours and claim is not None and claim.counted >= _WHOLE:
        quantized, uncovered = round(claim.held * total), claim.in_float
    elif not ours and claim is None:
        quantized = stored.macs_quantized(total)
        uncovered = stored.in_float() if quantized is not None else ()
    coverage = Coverage(
        layers=len(operations.quantized),
        macs_quantized=quantized,
        macs_total=total,
        uncovered=uncovered,
        activation_products=tuple(sorted(operations.activations)) if ours else (),
        macs_activation=float_operations.activations.total(),
        macs_transform=operations.transforms.total(),
    )
    on_purpose = "float" in exceptions and not quantized_layers(result)
    if ours and not coverage.layers and not on_purpose:
        raise QuantizerError(
            f"quantizer {str(spec)!r} quantized nothing that runs in the {spec.towers} tower(s)",
            hint="check the towers, and that the model has linear layers or convolutions",
        )
    return coverage


@dataclass(frozen=True, slots=True, eq=False)
class _Samples:
    """One image (1, 3, H, W) and one text (1, L), where the tower is selected."""

    image: Tensor | None
    text: Tensor | None

    @classmethod
    def first(cls, model: nn.Module, spec: QuantizerSpec, calibration: Calibration) -> _Samples:
        images = image_batches(model, calibration) if covers_images(spec.towers) else None
        texts = text_batches(model, calibration) if covers_texts(spec.towers) else None
        return cls(_first_row(images), _first_row(texts))

    def count(
        self,
        model: nn.Module,
        spec: QuantizerSpec,
        *,
        observe: Callable[[Product], None] | None = None,
    ) -> Operations:
        def run() -> None:
            if self.image is not None:
                model.encode_image(self.image)  # type: ignore[operator]
            if self.text is not None:
                model.encode_text(self.text)  # type: ignore[operator]

        with _encoding(spec):
            return count_operations(model, run, observe=observe)


def _all_of(looks: Sequence[Callable[[Product], None]]) -> Callable[[Product], None]:
    def look(product: Product) -> None:
        for each in looks:
            each(product)

    return look


@contextmanager
def _encoding(spec: QuantizerSpec) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise QuantizerError(
            f"the model of quantizer {str(spec)!r} cannot encode a calibration sample: "
            f"{type(error).__name__}: {error}",
            hint="check that images and tokens fit the model, and the quantized forward",
        ) from error


def _first_row(batches: Iterator[Tensor] | None) -> Tensor | None:
    return None if batches is None else next(batches)[:1]


def _fingerprint(model: nn.Module) -> list[tuple[str, int, str]]:
    """Return per tensor its name, version counter and a hash of up to 256 spread values.

    The counter sees in-place operations, the hash those that go around it (`tensor.data`).
    """
    prints = []
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        flat = tensor.detach().flatten()
        values = flat[:: max(1, len(flat) // 256)].cpu().contiguous()
        content = values.view(torch.uint8).numpy().tobytes()
        version = 0 if tensor.is_inference() else tensor._version
        prints.append((name, version, hashlib.sha256(content).hexdigest()))
    return prints

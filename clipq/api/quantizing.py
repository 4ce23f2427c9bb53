"""A quantized model from a model, for whoever wants the module itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipq.api.arguments import (
    Data,
    Model,
    as_model,
    as_pairs,
    as_probe,
    open_probe,
    pixels_of,
)
from clipq.api.trained_argument import read_trained, required_state
from clipq.cases import FP32, TUNED
from clipq.data import Images, Probe
from clipq.errors import ProbeError, QuantizerError
from clipq.quant import Calibration, QuantizerSpec

if TYPE_CHECKING:
    import torch

    from clipq.models import LoadedModel
    from clipq.quant import Quantized

__all__ = ["quantize"]

_CAPTIONS = 256


def quantize(
    model: Model,
    quantizer: str | QuantizerSpec,
    calibration_images: Data | torch.Tensor | np.ndarray | Sequence[Any],
    *,
    captions: Sequence[str] = (),
    proxy: Data | None = None,
    trained: str | Path | None = None,
    tokenizer: Callable[[list[str]], Any] | None = None,
    device: str = "cpu",
    batch_size: int = 64,
) -> Quantized:
    """Return a quantized copy of a model, and how much of it is quantized.

    Args:
        model: an open_clip source as text, or an open_clip module in memory, which stays as it is.
        quantizer: what to quantize with, or its text.
        calibration_images: for activation ranges and methods that calibrate: a tensor
            (N, 3, H, W) of floats, preprocessed already; uint8 pixels (N, H, W, 3) or a sequence of
            PIL images, which are preprocessed; or data as `clipq.evaluate` takes them.
        captions: texts for the text tower; by default the prompts of the data's classes where they
            have any, otherwise 256 classes of ImageNet-1k, each as "a photo of a CLASS.".
        proxy: images with captions, to tune the logit scale of ``QUANTIZER+logit-scale`` on. By
            default these are the calibration images, where their source has captions or
            `captions` holds one for each of them, in their order.
        trained: the folder of a trained quantizer such as ``lsq:w4a8``, as `clipq.train` or
            ``clipq train`` writes it.
        tokenizer: of a module in memory whose vocabulary is not CLIP's.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        batch_size: images, or texts, per batch.

    Returns:
        `model` in evaluation mode, `coverage` and `storage`. Where the logit scale is tuned, the
        model's own `logit_scale` (and `logit_bias`) is the tuned one, as open_clip stores it.

    Raises:
        QuantizerError: the method failed or quantized nothing; or it is one that learns, and
            `trained` is missing, damaged, or of another quantizer or model.
        ModelError, ProbeError: the model or the images cannot be used; or there are no pairs to
            tune on, or no scale can be told from them.

    >>> import clipq
    >>> quantized = clipq.quantize(
    ...     "local-dir:fixtures/models/vit-clean",
    ...     "rtn:w8",
    ...     clipq.open_probe("webdataset:fixtures/data/shapes", split="calibration"),
    ... )
    >>> round(quantized.coverage.share, 2)
    1.0
    """
    from clipq.quant import quantize as quantize_module

    spec = QuantizerSpec.parse(quantizer)
    if proxy is not None and not spec.tuned:
        raise QuantizerError(
            f"{str(spec)!r} tunes nothing, and a proxy is given",
            hint=f"leave `proxy` out, or quantize by {str(spec) + TUNED!r}",
        )
    if spec.method == FP32:
        raise QuantizerError(
            f"{str(spec)!r} quantizes nothing",
            hint="name a quantizer, such as 'rtn:w8a8'; what a tuned logit scale does to FP32, "
            "clipq.evaluate measures",
        )
    learnt = read_trained(spec, trained)
    loaded = as_model(model, tokenizer=tokenizer, device=device)
    state = None if learnt is None else required_state(learnt, spec, loaded)
    pairs = _pairs(calibration_images, captions, proxy) if spec.tuned else None
    images, lines = _calibration_data(calibration_images, loaded)
    tokens = loaded.tokenizer(list(captions) or lines)

    def batches(of: torch.Tensor) -> Callable[[], Iterator[torch.Tensor]]:
        return lambda: (
            of[start : start + batch_size].to(device) for start in range(0, len(of), batch_size)
        )

    data = Calibration(batches(images), batches(tokens), state)
    quantized = quantize_module(loaded.model, spec.base, data)
    if pairs is not None:
        _tune(quantized.model, pairs, loaded, device=device, batch_size=batch_size)
    return quantized


def _pairs(images: Any, captions: Sequence[str], proxy: Data | None) -> Probe:
    """Return the pairs that a logit scale is tuned on.

    Raises:
        ProbeError: there are none.
    """
    if proxy is not None:
        return as_pairs(proxy, name="proxy")
    given = Images(images) if isinstance(images, (np.ndarray, list, tuple)) else images
    known = captions or getattr(given, "captions", None) or isinstance(given, str)
    if not known or not isinstance(given, (str, Images, Probe)):
        raise ProbeError(
            "no image-caption pairs to tune a logit scale on",
            hint="pass proxy=, images with captions; or captions=[...], one of each calibration "
            "image, which are then pixels or pictures and no tensor",
        )
    if isinstance(given, str):
        given = open_probe(given)
    return as_pairs(given, name="calibration", captions=captions)


def _tune(
    model: torch.nn.Module, pairs: Probe, loaded: LoadedModel, *, device: str, batch_size: int
) -> None:
    """Give a quantized model the logit scale, and bias, that fit pairs best."""
    from clipq.data import blocks_of
    from clipq.evaluation.encode import encode_blocks, encode_texts
    from clipq.evaluation.inputs import caption_lines
    from clipq.evaluation.logit_scale import has_bias, pair_features, write_scale
    from clipq.evaluation.scale_fit import fit_scale
    from clipq.models import logit_map

    blocks = blocks_of(pixels_of(pairs, loaded), batch_size)
    images = np.concatenate(list(encode_blocks(model, blocks, loaded.preprocess, device=device)))
    tokens: torch.Tensor = loaded.tokenizer(caption_lines(pairs.captions or ())[0])
    texts = encode_texts(model, tokens, batch_size=batch_size, device=device)
    features = pair_features(images, texts, pairs, loaded)
    called, sigmoid = f"the pairs of {pairs.name!r}", has_bias(loaded.model)
    found = fit_scale(features, logit_map(model), sigmoid=sigmoid, called=called)
    write_scale(model, found)


def _calibration_data(given: Any, loaded: LoadedModel) -> tuple[torch.Tensor, list[str]]:
    """Return preprocessed images (N, 3, H, W), and texts for the text tower."""
    import torch

    if isinstance(given, torch.Tensor):
        if given.ndim != 4 or given.shape[1] != 3 or not given.is_floating_point():
            raise ProbeError(
                f"calibration images: a tensor of {given.dtype} and shape {tuple(given.shape)}",
                hint="preprocessed images are floats (N, 3, H, W); give pixels as uint8 arrays "
                "(N, H, W, 3) or as PIL images",
            )
        return given, _default_captions()
    if isinstance(given, (np.ndarray, list, tuple)):
        given = Images(given)
    probe = as_probe(given, name="calibration", role="ood")  # labels are not needed
    prompts = [
        template.replace("{c}", name) for name in probe.classnames for template in probe.templates
    ]
    return loaded.preprocess.normalise(pixels_of(probe, loaded)), prompts or _default_captions()


def _default_captions() -> list[str]:
    from clipq.data.shipped_lists import class_list

    names = class_list("imagenet1k", Path())
    return [f"a photo of a {name}." for name in names[:: len(names) // _CAPTIONS][:_CAPTIONS]]

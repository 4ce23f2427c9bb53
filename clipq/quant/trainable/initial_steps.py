"""Where steps, offsets and clips begin: LSQ's and LSQ+'s rules, or calibrated ranges.

| `init` | step of weights | step of inputs |
|---|---|---|
| `lsq` | 2 mean|w| / √Q_P | 2 mean|x| / √Q_P over the first calibration batch |
| `lsq+` | (|mean w| + 3 std w) / 2^(b-1) | from the range with the smallest squared error |
| `minmax` | max|w| / Q_P | from the smallest and the largest value of all calibration data |
| `mse` | from the range with the smallest squared error | likewise |
| `ema` | max|w| / Q_P | from the moving averages of each batch's extremes, momentum 0.1 |

A range [l, h] gives the step max(-l, h) / Q_P, and with an offset (h - l) / (2^b - 1) with the
offset l, zero included; `lsq` takes `minmax` for inputs with an offset. Zeros
have no step of their own: a channel of zeros gets the one that its layer has on average, a layer of
zeros that of weights of 1 / √in, and an input of zeros that of numbers around 1.

`mse` is the default, not the paper's rule: LSQ's grows with the bits far beyond the largest weight,
to 22 mean|w| at 8 bits, where weights then use some 40 of 256 codes, and short trainings do not
bring it back.

Sources: Esser et al. 2020, section 2.1; Bhalgat et al. 2020, section 3, whose search for the
smallest error is a gradient descent; here shares of the range are tried (`clipq.quant.ranges`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant.affine import usable_scale
from clipq.quant.formats import WeightFormat
from clipq.quant.methods import Calibration
from clipq.quant.observe import watch
from clipq.quant.pipeline import tower_of
from clipq.quant.spec import Towers
from clipq.quant.towers import covers_images, covers_texts, image_batches, text_batches
from clipq.quant.weights import split_weight, weight_grid

__all__ = ["FirstInput", "initial_weight_steps", "observe_first", "weights_per_step"]


@dataclass(slots=True)
class FirstInput:
    """What the first calibration batch shows of a layer's input.

    Args:
        absolute: mean of |x|.
        features: numbers per image or text, in one call.
        place: where in memory the tensor lay, by which layers that read one tensor know each other.
    """

    absolute: float
    features: float
    place: tuple[int, ...] = ()


def initial_weight_steps(weight: Tensor, number_format: WeightFormat, init: str) -> Tensor:
    """Return the steps at which a weight begins, float32, a column beside the blocks.

    Args:
        weight: (out, ...), finite.
        number_format: symmetric integers.
        init: ``"lsq"``, ``"lsq+"``, ``"minmax"``, ``"ema"`` or ``"mse"``.

    >>> weight = torch.tensor([[1.0, -1.0, 4.0, 2.0]])
    >>> initial_weight_steps(weight, WeightFormat(3), "lsq").tolist()  # 2 · 2 / √3
    [[2.309...]]
    """
    blocks = split_weight(weight.detach().float(), number_format)
    counts = weights_per_step(weight, number_format)
    high = 2 ** (number_format.bits - 1) - 1
    if init == "lsq":
        steps = 2.0 * blocks.abs().sum(-1, keepdim=True) / counts / high**0.5
    elif init == "lsq+":
        mean = blocks.sum(-1, keepdim=True) / counts
        square = blocks.square().sum(-1, keepdim=True) / counts
        deviation = (square - mean.square()).clamp(min=0.0).sqrt()
        steps = (mean.abs() + 3.0 * deviation) / (high + 1)
    else:
        chosen = "mse" if init == "mse" else "minmax"
        steps = weight_grid(blocks, number_format, chosen=chosen).scale  # type: ignore[arg-type]
    empty = blocks.abs().amax(-1, keepdim=True) == 0.0
    if empty.any():
        typical = torch.tensor(2.0 * (weight[0].numel() * high) ** -0.5)
        steps = torch.where(empty, typical if empty.all() else steps[~empty].mean(), steps)
    return usable_scale(steps)


def weights_per_step(weight: Tensor, number_format: WeightFormat) -> Tensor:
    """Return how many weights share each step, float32, a column beside the blocks.

    >>> weights_per_step(torch.zeros(2, 10), WeightFormat(4, 4)).squeeze(-1).tolist()
    [[4.0, 4.0, 2.0], [4.0, 4.0, 2.0]]
    """
    ones = torch.ones_like(weight, dtype=torch.float32)
    return split_weight(ones, number_format).sum(-1, keepdim=True)


def observe_first(
    model: nn.Module, towers: Towers, calibration: Calibration, layers: dict[str, nn.Module]
) -> dict[str, FirstInput]:
    """Return what the first calibration batch shows of each layer's input.

    Raises:
        QuantizerError: no data, a non-finite input, or a layer that never ran.
    """
    images = [next(image_batches(model, calibration))] if covers_images(towers) else []
    texts = [next(text_batches(model, calibration))] if covers_texts(towers) else []
    first = replace(calibration, images=lambda: iter(images), texts=lambda: iter(texts))
    samples = {"vision": sum(map(len, images)), "text": sum(map(len, texts))}
    sums: dict[str, tuple[float, int]] = {}
    found: dict[str, FirstInput] = {}

    def see(name: str, values: Tensor) -> None:
        if name not in found:  # N is that of the first call
            features = values.numel() / samples[tower_of(name)]
            place = (values.data_ptr(), *values.shape, *values.stride())
            found[name] = FirstInput(0.0, features, place)
        total, count = sums.get(name, (0.0, 0))
        total += float(values.abs().sum(dtype=torch.float64))
        sums[name] = total, count + values.numel()
        found[name].absolute = total / max(1, sums[name][1])

    watch(model, towers, first, layers, see)
    for name in layers:
        if name not in found:
            raise QuantizerError(
                f"{name} never ran on the calibration data, so its input has no step",
                hint="use dynamic activations (a8d), or remove the unused layer from the model",
            )
        if not found[name].absolute < torch.inf:
            raise QuantizerError(
                f"the input of {name} is not finite on the first calibration batch",
                hint="check images, texts and weights for NaN and Inf",
            )
    return found

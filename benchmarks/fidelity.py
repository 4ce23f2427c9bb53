"""How far each method is from an independent implementation, on the same tensors.

    python benchmarks/fidelity.py [--quick] [--table FILE]

Independent is torch, scipy or torchao where they have the method, else a slow transcription of the
paper's formula (`benchmarks/papers.py`), else what the method must not change. Tensors are
random with fixed seeds: 64 x 192 weights, correlated inputs with a few large channels; models are
the small CLIPs of `clipq.testing`, of every family. No goal: docs/fidelity.md shows the table.
It is quick as it is: --quick changes nothing.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import papers
import scipy.linalg
import torch
from benchmark import MET, Script, quiet
from tabulate import tabulate
from torch import Tensor, nn
from torchao.prototype.awq.core import AWQObserver
from torchao.prototype.mx_formats.mx_tensor import to_dtype, to_mx
from torchao.prototype.smoothquant.core import SmoothQuantObserver
from torchao.quantization import Int8WeightOnlyConfig
from torchao.quantization.quantize_.workflows.nf4.nf4_tensor import NF4Tensor

from clipq.errors import QuantizerError
from clipq.quant import Format, QuantizerSpec, quantize
from clipq.quant.allocation import allocate_bits
from clipq.quant.attention import AttentionProducts
from clipq.quant.awq import best_scale
from clipq.quant.explicit import make_explicit
from clipq.quant.floats import NF4
from clipq.quant.formats import AttentionFormat
from clipq.quant.gptq import gptq_round
from clipq.quant.observe import InputStatistics
from clipq.quant.rabitq import rabitq_codes
from clipq.quant.ranges.entropy import divergence
from clipq.quant.transforms.hadamard import hadamard_matrix
from clipq.quant.transforms.rotation import rotate
from clipq.quant.transforms.smoothing import scale_group, smoothing_scale
from clipq.quant.transforms.structure import execution_order, norm_groups
from clipq.quant.weights import quantize_weight
from clipq.testing import SMALL_CLIPS, SmallInputs, small_clip

Row = tuple[str, str, str]
RELATIVE = "of the largest"


def tensors(seed: int = 0, *, rows: int = 600, k: int = 192) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(64, k, generator=generator) / k**0.5
    mixing = torch.randn(k, k, generator=generator) / k**0.5 + 0.5 * torch.eye(k)
    inputs = torch.randn(rows, k, generator=generator) @ mixing
    inputs[:, :: k // 4] *= 8
    return weight, inputs


def rounded(weight: Tensor, text: str) -> Tensor:
    return quantize_weight(weight, Format.parse(text).weight, name="w")


def numbers() -> Iterator[Row]:
    weight, _ = tensors()
    worst = max(
        float(np.abs(rounded(weight, f"w{b}").numpy() - papers.rtn(weight.numpy(), b)).max())
        for b in range(2, 9)
    )
    yield "rtn, symmetric, 2 to 8 bits", "the formula in numpy", f"{worst:.2g}"
    worst = 0.0
    for bits in range(2, 9):
        low, high = (float(x) for x in torch.aminmax(weight))
        scale = (high - low) / (2**bits - 1)
        theirs = torch.fake_quantize_per_tensor_affine(
            weight, scale, round(-low / scale), 0, 2**bits - 1
        )
        steps = ((rounded(weight, f"w{bits}tz") - theirs).abs() / scale).flatten()
        # torch multiplies by 1 / s: values at a tie may take the neighbouring code.
        worst = max(worst, float(steps[steps < 0.5].max()))
    yield "rtn, asymmetric, 2 to 8 bits", "torch.fake_quantize_per_tensor_affine", f"{worst:.2g} s"
    for text, element in (("wmxfp8", torch.float8_e4m3fn), ("wmxfp4", torch.float4_e2m1fn_x2)):
        scale, data = to_mx(weight, element, 32)
        theirs = to_dtype(data, scale, element, 32, torch.float32)
        yield (
            text[1:],
            "torchao to_mx",
            f"{float((rounded(weight, text) - theirs).abs().max()):.2g}",
        )
    for text, dtype in (("we4m3", torch.float8_e4m3fn), ("we5m2", torch.float8_e5m2)):
        scale = weight.abs().amax(1, keepdim=True) / torch.finfo(dtype).max
        theirs = (weight / scale).to(dtype).float() * scale
        difference = float((rounded(weight, text) - theirs).abs().max())
        yield text[1:], "torch's cast", f"{difference:.2g}"
    theirs = NF4Tensor.from_tensor(torch.randn(64, 64), 64, 1).nf4.float()
    difference = float((torch.tensor(NF4) - theirs).abs().max())
    yield "nf4, its 16 values", "torchao NF4Tensor (four decimals)", f"{difference:.2g}"


def ranges() -> Iterator[Row]:
    counts = torch.histc(tensors()[1].abs(), 512).double()
    worst = max(
        abs(divergence(counts, size, 128) / papers.divergence(counts, size, 128) - 1)
        for size in range(128, 513, 32)
    )
    yield "entropy ranges, divergence", "TensorRT's procedure, bin by bin", f"{worst:.2g} relative"


def smoothquant() -> Iterator[Row]:
    weight, inputs = tensors()
    observer = SmoothQuantObserver(weight, alpha=0.7)
    observer(inputs)
    theirs, *_ = observer.calculate_qparams()
    largest = inputs.abs().amax(0), weight.abs().amax(0)
    ours = smoothing_scale(*largest, alpha=0.7)
    difference = float((ours / theirs - 1).abs().max())
    yield "smoothquant, scales", "torchao SmoothQuantObserver", f"{difference:.2g} relative"
    slow = torch.tensor(papers.smoothing_scale(*largest, alpha=0.7))
    difference = float((ours / slow - 1).abs().max())
    yield "smoothquant, scales", "the paper's equation", f"{difference:.2g} relative"
    yield "smoothquant, before rounding", "FP32 features, all families", identity("smooth")


def quarot() -> Iterator[Row]:
    for order in (64, 1024):
        ours = hadamard_matrix(order).numpy()
        difference = np.abs(ours - scipy.linalg.hadamard(order)).max()
        yield f"Hadamard matrix of order {order}", "scipy", f"{difference:.2g}"
    yield (
        "quarot, before rounding",
        "FP32 features, families with a residual stream",
        identity("rotate"),
    )


def identity(change: str) -> str:
    """Return the largest difference of features, relative to the largest feature."""
    worst = 0.0
    for family in SMALL_CLIPS:
        inputs, model = SmallInputs(), small_clip(family)
        changed = copy.deepcopy(model)
        make_explicit(changed, "both")
        order = execution_order(changed, "both", inputs.calibration)
        if change == "smooth":
            for group in norm_groups(changed, "both", order).values():
                generator = torch.Generator().manual_seed(0)
                scale_group(group, torch.randn(group.width, generator=generator).exp())
        else:
            for towers in ("vision", "text"):
                try:
                    rotate(changed, towers, order, seed=0)
                except QuantizerError:  # no residual stream to rotate
                    continue
        for mine, theirs in zip(inputs.encode(changed), inputs.encode(model), strict=True):
            worst = max(worst, float((mine - theirs).abs().max() / theirs.abs().max()))
    return f"{worst:.2g} {RELATIVE}"


def gptq() -> Iterator[Row]:
    agreeing, worst, objective = [], 0.0, 0.0
    for text in ("w4", "w4g16", "w3z", "wnf4g32", "w4t"):
        number_format = Format.parse(text).weight
        weight, inputs = tensors(k=96)
        gram = 2.0 / len(inputs) * inputs.T @ inputs
        fast = gptq_round(weight, gram, number_format)
        slow = papers.gptq(weight, gram, number_format)
        rows = (fast - slow).abs().amax(1)
        agreeing.append(float((rows < 1e-5).float().mean()))
        worst = max(worst, float(rows[rows < 1e-5].max()))
        mine, theirs = (float(((x - weight) @ gram * (x - weight)).sum()) for x in (fast, slow))
        objective = max(objective, abs(mine / theirs - 1))
    against = "elimination column by column, float64"
    yield (
        f"gptq, weights of the {min(agreeing):.0%} of rows without a tie",
        against,
        f"{worst:.2g}",
    )
    yield "gptq, objective", against, f"{objective:.2g} relative"


def awq() -> Iterator[Row]:
    worst, behind = 0.0, 0.0
    number_format = Format.parse("w8").weight
    for seed in range(4):
        weight, inputs = tensors(seed)
        seen = InputStatistics()
        seen.see(nn.Linear(inputs.shape[1], 1), inputs, gram=True)
        for text in ("w3", "w4g16"):
            chosen = Format.parse(text).weight
            mine = papers.awq_loss(weight, inputs, chosen, best_scale([weight], [chosen], seen))
            worst = max(worst, mine / min(papers.awq_losses(weight, inputs, chosen)) - 1)
        observer = AWQObserver(weight, None, Int8WeightOnlyConfig(version=2))
        observer(inputs, inputs)
        losses = [
            papers.awq_loss(weight, inputs, number_format, scale)
            for scale in (
                best_scale([weight], [number_format], seen),
                observer.calculate_qparams().float(),
            )
        ]
        behind = max(behind, losses[0] / losses[1] - 1)
    yield (
        "awq, loss of the scale",
        "the best of all 20, on the inputs themselves",
        f"{worst:.2g} relative",
    )
    yield (
        "awq, loss of the scale (w8)",
        "torchao AWQObserver's scale",
        f"{behind:.2g} relative, at most",
    )


def raana() -> Iterator[Row]:
    worst = 0.0
    for seed in range(20):
        row = torch.randn(1, 6, generator=torch.Generator().manual_seed(seed))
        codes = rabitq_codes(row, bits=2)[0] - 1.5
        mine = float(codes @ row[0] / codes.norm() / row.norm())
        worst = max(worst, papers.rabitq_cosine(row[0], 2) - mine)
    yield "raana, cosine of 2-bit codes of 6 numbers", "the best of all 4,096", f"{worst:.2g}"
    generator, worst = np.random.default_rng(0), 0.0
    for _ in range(50):
        costs, sizes = (
            generator.uniform(0.01, 100, 4).tolist(),
            generator.integers(1, 7, 4).tolist(),
        )
        bits = allocate_bits(costs, sizes, average=2.7, choices=range(1, 5))
        mine = sum(c * 2.0**-b for c, b in zip(costs, bits, strict=True))
        worst = max(worst, mine / papers.allocation_cost(costs, sizes, 2.7, range(1, 5)) - 1)
    yield "raana, cost of the bits", "the best of all allocations", f"{abs(worst):.2g} relative"


def attention() -> Iterator[Row]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, length, 8, generator=generator) for length in (5, 7, 7))
    mask, worst = torch.zeros(5, 7), 0.0
    for operands, probabilities in ((8, None), (None, 8), (4, 6)):
        found = AttentionProducts(AttentionFormat(operands, probabilities))(
            q, k, v, mask=mask, dropout=0.0
        )
        slow = papers.attention(q, k, v, mask, operands, probabilities)
        worst = max(worst, float((found - slow).abs().max()))
    yield "attention, k8, s8 and k4s6", "the definition, query by query", f"{worst:.2g}"


def integer() -> Iterator[Row]:
    worst, inputs = 0.0, SmallInputs()
    name = "visual.transformer.resblocks.0.mlp.c_fc"
    for text in ("w8a8", "w4a8z", "w8ta8"):
        spec = QuantizerSpec.parse(f"rtn:{text},compute=integer")
        layer = quantize(small_clip(), spec, inputs.calibration).model.get_submodule(name)
        values = torch.randn(64, layer.in_features, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found = layer(values)
            exact = layer.inputs(values).double() @ layer.weight.double().T + layer.bias.double()
        worst = max(worst, float((found - exact).abs().max() / exact.abs().max()))
    yield "integer products of a layer", "the simulation in float64", f"{worst:.2g} {RELATIVE}"


PARTS = (numbers, ranges, smoothquant, quarot, gptq, awq, raana, attention, integer)


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="a quarter of a minute")
    script.add_argument("--table", type=Path, help="also write the table there, as Markdown")
    options = script.options(arguments)
    with quiet():
        rows = [row for part in PARTS for row in part()]
    headers = ("method", "held against", "largest difference")
    print(tabulate(rows, headers, disable_numparse=True))
    if options.table:
        table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
        options.table.write_text(f"{table}\n")
    return MET


if __name__ == "__main__":
    sys.exit(main())

"""Every architecture that open_clip builds offline: what of it clipq covers, and how faithfully.

    python benchmarks/architectures.py [--quick] [--largest 250] [--only NAME ...] [--table FILE]

For each: the share of multiply-adds in matrix products and convolutions that quantized layers do;
the largest difference between the model's features and those of the explicit model with every
layer replaced (random weights, relative to the largest feature; goal 1e-5); whether a w8a8 encode
is finite. Goal: at least 99 % covered. Models with more than `--largest` million weights are
counted on the meta device only, where nothing has a value.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from benchmark import Goals, Script, quiet
from tabulate import tabulate
from torch import Tensor, nn

from clipq.errors import ClipqError
from clipq.quant import Calibration, QuantizerSpec, quantize
from clipq.quant.coverage import count_operations
from clipq.quant.explicit import make_explicit
from clipq.quant.modules import quantized_twin
from clipq.quant.surgery import plain_layers, replace_modules

GOAL_SHARE, GOAL_DIFFERENCE = 0.99, 1e-5


def identity(model: nn.Module) -> nn.Module:
    """Make `model` explicit and replace every layer by a twin that rounds nothing, in place."""
    make_explicit(model, "both")
    layers = plain_layers(model, "both").values()
    twins = {layer: quantized_twin(layer, layer.weight.detach(), None) for layer in layers}
    replace_modules(model, "both", twins)
    return model


def inputs(model: nn.Module, name: str, device: str) -> tuple[Tensor, Tensor]:
    size = model.visual.image_size
    height, width = size if isinstance(size, tuple) else (size, size)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, height, width, generator=generator)
    text = open_clip.get_model_config(name)["text_cfg"]
    length, vocabulary = text.get("context_length", 77), text.get("vocab_size", 49408)
    tokens = torch.randint(1, vocabulary, (1, length), generator=generator)
    tokens[:, -1] = vocabulary - 1  # CLIP reads the text at its largest token
    return images.to(device), tokens.to(device)


def examine(name: str, largest: float) -> tuple:
    """Return a row of the table."""
    meta = open_clip.create_model(name, device="meta").eval()
    weights = sum(p.numel() for p in meta.parameters()) / 1e6
    images, tokens = inputs(meta, name, "meta")
    same = identity(meta)

    def run() -> None:
        same.encode_image(images)
        same.encode_text(tokens)

    operations = count_operations(same, run)
    total = operations.quantized.total() + operations.weights.total()
    share = operations.quantized.total() / total
    left = ", ".join(sorted(operations.weights))
    row = (name, round(weights), len(operations.quantized), f"{share:.4%}", left or "-")
    del meta, same
    if weights > largest:
        return (*row, "not run", "not run")
    torch.manual_seed(0)
    real = open_clip.create_model(name).eval()
    images, tokens = inputs(real, name, "cpu")
    with torch.no_grad():
        before = real.encode_image(images), real.encode_text(tokens)
    calibration = Calibration(lambda: iter([images]), lambda: iter([tokens]))
    try:
        coarse = quantize(real, QuantizerSpec.parse("rtn:w8a8"), calibration).model
        with torch.no_grad():
            found = coarse.encode_image(images), coarse.encode_text(tokens)
        finite = "yes" if all(bool(x.isfinite().all()) for x in found) else "NO"
    except ClipqError as error:
        finite = f"refused: {error}"
    del coarse
    same = identity(real)
    with torch.no_grad():
        after = same.encode_image(images), same.encode_text(tokens)
    difference = max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(after, before, strict=True)
    )
    return (*row, f"{difference:.1e}", finite)


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="about an hour on 2 cores")
    script.size("--largest", full=250.0, quick=100.0, help="million weights of a model that runs")
    script.size("--only", full=("*",), quick=("ViT-S-32-alt",), help="architectures; * for all")
    script.add_argument("--table", type=Path, help="also write the table there, as Markdown")
    options = script.options(arguments)
    with quiet():
        return report(options, Goals(quick=options.quick))


def report(options, goals: Goals) -> int:
    """Examine every architecture asked for; return the exit code."""
    headers = ("architecture", "M weights", "layers", "covered", "not covered", "diff.", "w8a8")
    rows, refused = [], []
    for name in open_clip.list_models() if "*" in options.only else options.only:
        started = time.perf_counter()
        try:
            rows.append(examine(name, options.largest))
        except Exception as error:
            refused.append((name, f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"))
        last = rows[-1] if rows and rows[-1][0] == name else refused[-1]
        print(*last, f"({time.perf_counter() - started:.0f} s)", sep="  ", flush=True)
        gc.collect()
    print(tabulate(rows, headers))
    print(tabulate(refused, ("not built here", "reason")))
    short = [row[0] for row in rows if float(row[3][:-1]) < 100 * GOAL_SHARE]
    far = [row[0] for row in rows if row[5] != "not run" and float(row[5]) > GOAL_DIFFERENCE]
    print(
        f"{len(rows)} architectures; below {GOAL_SHARE:.0%}: {short or 'none'}; "
        f"differing by more than {GOAL_DIFFERENCE}: {far or 'none'}"
    )
    goals.exact(not short and not far)
    if options.table:
        table = tabulate(rows, headers, tablefmt="github")
        missing = tabulate(refused, ("not built here", "reason"), tablefmt="github")
        options.table.write_text(f"{table}\n\n{missing}\n")
    return goals.code


if __name__ == "__main__":
    sys.exit(main())

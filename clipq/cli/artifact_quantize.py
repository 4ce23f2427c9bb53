"""`clipq artifact quantize`: a model in 8 bits, by the tools that deploy it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from clipq.cli.artifact_writing import add_writing_options, write_artifact

__all__ = ["declare", "run"]

_DESCRIPTION = """\
Quantize a model of clipq.toml by a tool that deploys it, with settings that work. Ranges are taken
from the images of the calibration probe and the prompts or captions that go with it. Files, a
manifest and, where there are any, the float graphs that they were made from are written; what is
printed is the table for clipq.toml.
"""
_EPILOG = """\
recipes:
  onnxruntime-dynamic       w8a8d  weights per tensor; ranges of activations from each batch
  onnxruntime-static        w8a8   products with weights alone, per channel
  onnxruntime-static-all    w8a8   BROKEN: default operators; the attention mask's -inf makes a
                                   scale infinite. It shows what a gate and its lint are for
  openvino-int8             w8a8   NNCF with its settings for transformers
  openvino-int8-default     w8a8   NNCF with its defaults, which are for convolutional networks
  torchao-int8-dynamic      w8a8d  weights per channel, activations per token
  torchao-int8-weight-only  w8     weights per channel
  quanto-w8a8               w8a8   optimum-quanto, for the runtime `torch`

Each is an extra of clipq: pip install 'pytest-clipq[onnxruntime]', [openvino], [torchao], [quanto].
torchao and quanto miss `in_proj_weight`, `proj` and `text_projection` by themselves: attention and
projections are made modules first.

  clipq artifact quantize vit-clean --recipe onnxruntime-static --output deploy
  clipq artifact quantize vit-clean --recipe openvino-int8 --output deploy --name ov >> clipq.toml
"""


def declare(actions: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq artifact quantize` to the command line."""
    quantize = actions.add_parser(
        "quantize",
        help="a model in 8 bits by ONNX Runtime, NNCF, torchao or quanto, with settings that work",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_writing_options(quantize)
    quantize.add_argument("--recipe", required=True, metavar="RECIPE", help="see below")
    quantize.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Write the files, print the table; return 0.

    Raises:
        ClipqError: there is no such recipe, or the model or the folder cannot be used.
    """
    return write_artifact(options, options.recipe)

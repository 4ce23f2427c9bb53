"""`clipq artifact export`: a float model as a runtime's files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from clipq.cli.artifact_writing import add_writing_options, write_artifact
from clipq.cli.context import settings_of
from clipq.errors import UnknownNameError, did_you_mean

__all__ = ["declare", "run"]

_FLOAT = "-float"
_DESCRIPTION = """\
Export a model of clipq.toml, in float, as the files that a runtime runs: one graph of each tower,
which takes images or tokens and returns features as open_clip does, and a manifest that says what
they are. torch's fused attention is off, and weights of the other tower are left out. What is
printed is the table for clipq.toml, so that `clipq gate` judges "FP32 as exported" as well.
"""
_EPILOG = """\
runtimes:
  onnxruntime   ONNX, by torch's exporter                  pip install 'pytest-clipq[onnxruntime]'
  openvino      OpenVINO IR                                pip install 'pytest-clipq[openvino]'
  torch-export  torch.export, .pt2
  aoti          compiled for this processor, .pt2          needs a compiler for C++
  executorch    .pte, products by XNNPACK                  pip install 'pytest-clipq[executorch]'

  clipq artifact export vit-clean --runtime onnxruntime --output deploy
  clipq artifact export vit-clean --runtime openvino --batch 1 --output deploy/one
  clipq artifact export vit-clean --runtime torch-export --output deploy >> clipq.toml
"""


def declare(actions: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq artifact export` to the command line."""
    export = actions.add_parser(
        "export",
        help="a float model as a runtime's files, with their manifest",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_writing_options(export)
    export.add_argument("--runtime", required=True, metavar="RUNTIME", help="see below")
    export.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Write the files, print the table; return 0.

    Raises:
        ClipqError: there is no such runtime, or the model or the folder cannot be used.
    """
    from clipq.evaluation.plan import load_plugins
    from clipq.exports import recipes

    load_plugins(settings_of(options))  # which may export to a runtime of their own
    recipe = f"{options.runtime}{_FLOAT}"
    if recipe not in recipes:
        known = (n.removesuffix(_FLOAT) for n in recipes.names() if n.endswith(_FLOAT))
        raise UnknownNameError(
            f"nothing exports to runtime {options.runtime!r}",
            hint=did_you_mean(options.runtime, known),
        )
    return write_artifact(options, recipe)

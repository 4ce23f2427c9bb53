"""Hypothesis strategies for tensors, number formats, quantizers and small CLIPs.

>>> from hypothesis import given
>>> from clipq.testing import strategies
>>> @given(strategies.tensors(dims=2), strategies.weight_formats())
... def test_mine(weight, number_format): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import hypothesis.extra.numpy as numpy_strategies
import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from clipq.cases import TUNED
from clipq.errors import QuantizerError
from clipq.quant import ActivationFormat, Format, QuantizerSpec, WeightFormat
from clipq.quant.formats import AttentionFormat
from clipq.testing.models import SMALL_CLIPS, small_clip

__all__ = [
    "activation_formats",
    "finite_floats",
    "formats",
    "moderate_floats",
    "quantizer_specs",
    "small_clips",
    "tensors",
    "weight_formats",
]

_INTEGERS = st.integers(2, 8)
_FLOATS = ("e4m3", "e5m2", "mxfp4", "mxfp8", "nf4")


def finite_floats() -> st.SearchStrategy[float]:
    """Return float32 values up to 2⁹⁹, zeros and denormals included.

    Beyond, the products of a test's own arithmetic overflow.

    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5)
    ... @given(finite_floats())
    ... def check(value):
    ...     assert abs(value) <= 2.0**99
    >>> check()
    """
    return st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=True)


def moderate_floats() -> st.SearchStrategy[float]:
    """Return normal float32 values up to a thousand.

    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5)
    ... @given(moderate_floats())
    ... def check(value):
    ...     assert abs(value) <= 1000
    >>> check()
    """
    return st.floats(-1e3, 1e3, width=32, allow_subnormal=False)


def tensors(
    elements: st.SearchStrategy[float] | None = None, *, dims: int = 1, max_side: int = 12
) -> st.SearchStrategy[Tensor]:
    """Return float32 tensors.

    Args:
        elements: `finite_floats` by default.
        dims: number of dimensions.
        max_side: largest length of one; the smallest is 1.

    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5)
    ... @given(tensors(dims=2, max_side=4))
    ... def check(weight):
    ...     assert weight.dim() == 2 and max(weight.shape) <= 4
    >>> check()
    """
    shapes = numpy_strategies.array_shapes(min_dims=dims, max_dims=dims, max_side=max_side)
    values = finite_floats() if elements is None else elements
    return numpy_strategies.arrays(np.float32, shapes, elements=values).map(torch.from_numpy)


def weight_formats() -> st.SearchStrategy[WeightFormat]:
    """Return every kind of weight format: integers, floats, shared exponents, quantiles.

    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5)
    ... @given(weight_formats())
    ... def check(number_format):
    ...     assert Format.parse(str(number_format)).weight == number_format
    >>> check()
    """
    scales = st.sampled_from(["channel", "tensor"]) | st.integers(1, 10**6)
    integers = st.builds(WeightFormat, _INTEGERS, scales, st.booleans(), power_of_two=st.booleans())
    return integers | _of_text(
        "w", st.sampled_from(_FLOATS), st.sampled_from(["", "t", "g32"]), st.sampled_from(["", "p"])
    ).map(lambda number_format: number_format.weight)


def activation_formats() -> st.SearchStrategy[ActivationFormat]:
    """Return every kind of activation format, static and dynamic.

    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5)
    ... @given(activation_formats())
    ... def check(number_format):
    ...     assert Format.parse(f"w8{number_format}").activation == number_format
    >>> check()
    """
    static = st.builds(
        ActivationFormat, _INTEGERS, asymmetric=st.booleans(), power_of_two=st.booleans()
    )
    dynamic = st.builds(
        ActivationFormat,
        _INTEGERS,
        dynamic=st.just(True),
        asymmetric=st.booleans(),
        power_of_two=st.booleans(),
        group=st.none() | st.integers(1, 512),
    )
    floats = _of_text(
        "w8a",
        st.sampled_from(["e4m3", "e5m2", "mxfp4", "mxfp8"]),
        st.sampled_from(["", "d", "dg64"]),
        st.sampled_from(["", "p"]),
    )
    return static | dynamic | floats.map(_activation)


def formats() -> st.SearchStrategy[Format]:
    """Return whole formats: weights, with or without activations and attention.

    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5)
    ... @given(formats())
    ... def check(number_format):
    ...     assert Format.parse(str(number_format)) == number_format
    >>> check()
    """
    attention = st.builds(AttentionFormat, _INTEGERS, st.none() | _INTEGERS)
    activations = st.none() | activation_formats()
    return st.builds(Format, weight_formats(), activations, st.none() | attention)


def quantizer_specs() -> st.SearchStrategy[QuantizerSpec]:
    """Return quantizers with any method name, format, options and towers, tuned or not.

    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5)
    ... @given(quantizer_specs())
    ... def check(spec):
    ...     assert QuantizerSpec.parse(str(spec)) == spec
    >>> check()
    """
    words = st.from_regex("[a-z][a-z0-9_]*", fullmatch=True)
    values = st.from_regex("[A-Za-z0-9._+*?/-]+", fullmatch=True)
    values = values.filter(lambda value: not value.endswith(TUNED))
    return st.builds(
        QuantizerSpec,
        words.filter(lambda word: word != "fp32"),
        st.none() | formats(),
        st.dictionaries(words, values, max_size=4).map(lambda d: tuple(d.items())),
        st.sampled_from(["both", "vision", "text"]),
        st.booleans(),
    )


def small_clips(families: Sequence[str] = SMALL_CLIPS) -> st.SearchStrategy[nn.Module]:
    """Return small open_clip models, a fresh one per draw; shrinks to the first family, seed 0.

    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5)
    ... @given(small_clips(["vit"]))
    ... def check(model):
    ...     assert not model.training
    >>> check()
    """
    return st.builds(
        lambda family, seed: small_clip(family, seed=seed),
        st.sampled_from(list(families)),
        st.integers(0, 2**16),
    )


def _of_text(*parts: str | st.SearchStrategy[str]) -> st.SearchStrategy[Format]:
    """Return what parses of all combinations of text parts."""

    def parsed(chosen: tuple[str, ...]) -> Format | None:
        try:
            return Format.parse("".join(chosen))
        except QuantizerError:  # mxfp4 takes no suffix, for example
            return None

    texts = st.tuples(*(st.just(part) if isinstance(part, str) else part for part in parts))
    return texts.map(parsed).filter(lambda f: f is not None)  # type: ignore[return-value]


def _activation(number_format: Format) -> ActivationFormat:
    return cast(ActivationFormat, number_format.activation)

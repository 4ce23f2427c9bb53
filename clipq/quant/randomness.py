"""What a quantizer's result hangs on beside the model: a seed, and which calibration data it saw.

Methods say so when they are registered: ``draws=True`` where their option `seed` changes the
result, ``calibrates=False`` where their own step reads no calibration data. One that says nothing
draws nothing and reads data: at worst the same result is computed twice. Clipq's own methods are
not imported to be asked, so that planning stays light; those of installed packages are.
"""

from __future__ import annotations

from clipq.cases import FP32
from clipq.quant.methods import OWN, find_method, quantizers
from clipq.quant.spec import QuantizerSpec

__all__ = ["calibrates", "draws"]


def draws(spec: QuantizerSpec | str) -> bool:
    """Return whether the option `seed` of a quantizer changes what it makes.

    That is where its method draws something (noise, the signs of a rotation), where it works on
    rotated weights, and where it is trained for any step at all.

    Raises:
        UnknownNameError: its method is not registered.

    >>> [draws(text) for text in ("rtn:w8a8", "quarot:w8a8", "gptq:w4,rotation=hadamard")]
    [False, True, True]
    >>> draws("lsq:w4a8"), draws("lsq:w4a8,steps=0"), draws("rot+lsq:w4a8,steps=0")
    (True, False, True)
    """
    spec = QuantizerSpec.parse(spec)
    if spec.method == FP32:
        return False
    rotated = dict(spec.options).get("rotation", "none") != "none"
    return rotated or _said(spec, "draws", default=False) or _learns(spec)


def calibrates(spec: QuantizerSpec | str) -> bool:
    """Return whether a quantizer's result may depend on which calibration data it is given.

    That is where activations have static ranges, where biases are corrected, where the method's own
    step or its training looks at data, and where a table may hold formats with static ranges. The
    shape of data alone, which every method needs, does not count.

    Raises:
        UnknownNameError: its method is not registered.

    >>> [calibrates(text) for text in ("rtn:w8a8", "rtn:w8a8d", "rtn:w8", "rtn:w8,bias=correct")]
    [True, False, False, True]
    >>> calibrates("gptq:w4"), calibrates("quarot:w4a8d"), calibrates("lsq:w4")
    (True, False, True)
    """
    spec = QuantizerSpec.parse(spec)
    if spec.method == FP32:
        return False
    options = dict(spec.options)
    activation = spec.format.activation if spec.format else None
    return (
        (activation is not None and not activation.dynamic)
        or options.get("bias") == "correct"
        or "table" in options
        or _said(spec, "calibrates", default=True)
        or _learns(spec)
    )


def _learns(spec: QuantizerSpec) -> bool:
    return _said(spec, "trains", default=False) and dict(spec.options).get("steps") != "0"


def _said(spec: QuantizerSpec, attribute: str, *, default: bool) -> bool:
    """Return what a method says of itself; of clipq's own without importing it."""
    if spec.method in quantizers and quantizers.origin(spec.method).startswith(OWN):
        return bool(quantizers.said(spec.method, attribute, default))
    return bool(getattr(find_method(spec), attribute, default))

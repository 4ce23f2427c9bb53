"""What a process is set to that can move a number: of torch, numpy, Python and the system.

Each setting is read, compared and put back. torch's are looked at only where torch is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

__all__ = ["ProcessSettings", "unusual_settings"]

_HARMLESS = ("CLIPQ_", "KINETO_", "PYTEST_", "TOKENIZERS_", "TORCHINDUCTOR_", "TRITON_")
"""Beginnings of environment variables that libraries set for themselves; they move no number."""
_USUAL = {
    "flushing of denormal numbers": "False",
    "torch.backends.mkldnn.enabled": "True",
    "torch.get_default_dtype()": "torch.float32",
    "torch.get_float32_matmul_precision()": "highest",
    "the stack of torch function modes": "[]",
}
"""What torch is set to by itself, of what moves FP32 on a CPU."""
_TINY = 5e-324
_GUARDS: list[Any] = []
"""What keeps a mode switched back for as long as it lives."""


@dataclass(frozen=True, slots=True)
class _Setting:
    """One setting: how to read it, and how to write it back where that can be done."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object] | None = None


def unusual_settings() -> dict[str, str]:
    """Return what this process is set to that torch is not by itself, and that moves FP32.

    >>> import torch
    >>> torch.set_float32_matmul_precision("medium")
    >>> unusual_settings()
    {'torch.get_float32_matmul_precision()': 'medium'}
    >>> torch.set_float32_matmul_precision("highest")
    >>> unusual_settings()
    {}
    """
    now = {setting.name: setting for setting in _settings() if setting.name in _USUAL}
    values = {name: str(_read(setting)) for name, setting in now.items()}
    return {name: value for name, value in values.items() if value != _USUAL[name]}


class ProcessSettings:
    """The settings of this process at one moment.

    >>> import torch
    >>> before = ProcessSettings()
    >>> torch.set_default_dtype(torch.float64)
    >>> before.restore()
    ['torch.get_default_dtype() is torch.float64, was torch.float32']
    >>> before.restore(), torch.get_default_dtype()
    ([], torch.float32)
    """

    def __init__(self) -> None:
        self._values = {setting.name: _read(setting) for setting in _settings()}
        self._environment = dict(os.environ)

    def adopt_since(self, before: ProcessSettings) -> None:
        """Take what has changed since another moment as it is now, and what is new."""
        for setting in _settings():
            now, then = _read(setting), before._values.get(setting.name)
            if setting.name not in before._values or now != then:
                self._values[setting.name] = now
        environment = dict(os.environ)
        for name in environment.keys() | before._environment.keys():
            if environment.get(name) != before._environment.get(name):
                self._environment = _with(self._environment, name, environment.get(name))

    def restore(self) -> list[str]:
        """Put everything back; return what had changed, in words. What stays is found again."""
        changed = self._changed()
        for _ in range(2 if changed else 0):  # writing some moves others
            for setting, _, was in self._changed():
                if setting.write is not None:
                    with suppress(Exception):
                        setting.write(was)
        said = [f"{setting.name} is {value}, was {was}" for setting, value, was in changed]
        return [*said, *self._environment_put_back()]

    def _changed(self) -> list[tuple[_Setting, Any, Any]]:
        now = [(setting, _read(setting)) for setting in _settings()]
        return [
            (setting, value, self._values[setting.name])
            for setting, value in now
            if setting.name in self._values and value != self._values[setting.name]
        ]

    def _environment_put_back(self) -> Iterator[str]:
        now = dict(os.environ)
        if now == self._environment:
            return
        for name in sorted(now.keys() | self._environment.keys()):
            was = self._environment.get(name)
            if now.get(name) == was:
                continue
            if name.startswith(_HARMLESS):
                self._environment = _with(self._environment, name, now.get(name))
                continue
            if was is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = was
            # Without the values: they may hold secrets.
            yield f"environment variable {name} was {'set' if was is None else 'changed'}"


def _with(values: Mapping[str, str], name: str, value: str | None) -> dict[str, str]:
    rest = {key: kept for key, kept in values.items() if key != name}
    return rest if value is None else rest | {name: value}


def _read(setting: _Setting) -> Any:
    try:
        return setting.read()
    except Exception as error:  # some refuse to be read after their newer form was written
        return f"unreadable ({type(error).__name__})"


def _settings() -> tuple[_Setting, ...]:
    torch_is_here = hasattr(sys.modules.get("torch"), "nn")
    return (*_PLAIN, *(_torch_settings() if torch_is_here else ()))


def _denormals_are_zero() -> bool:
    one = 1.0
    return _TINY * one == 0.0


def _let_denormals_be(zero: bool) -> None:
    import torch

    torch.set_flush_denormal(zero)


_PLAIN = (
    _Setting("numpy.geterr()", np.geterr, lambda was: np.seterr(**was)),
    _Setting("the working directory", os.getcwd, os.chdir),
    _Setting("flushing of denormal numbers", _denormals_are_zero, _let_denormals_be),
)


@cache
def _torch_settings() -> tuple[_Setting, ...]:
    import torch
    from torch import backends

    return (
        # Modes first: what is written below would go through them.
        _Setting("torch.set_default_device()", _default_device, torch.set_default_device),
        _Setting("the stack of torch function modes", _function_modes, _pop_function_modes),
        _Setting("the stack of torch dispatch modes", _dispatch_modes, _pop_dispatch_modes),
        _Setting("torch.get_default_dtype()", torch.get_default_dtype, torch.set_default_dtype),
        _Setting("torch.get_num_threads()", torch.get_num_threads, torch.set_num_threads),
        _Setting("torch.get_num_interop_threads()", torch.get_num_interop_threads),
        _Setting("torch.is_grad_enabled()", torch.is_grad_enabled, torch.set_grad_enabled),
        _Setting(
            "torch.is_inference_mode_enabled()",
            torch.is_inference_mode_enabled,
            lambda was: _GUARDS.append(torch._C._InferenceMode(was)),
        ),
        _Setting(
            "torch.is_anomaly_enabled()",
            torch.is_anomaly_enabled,
            torch.autograd.set_detect_anomaly,
        ),
        _Setting(
            "torch.get_float32_matmul_precision()",
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
        ),
        _Setting(
            "torch.get_deterministic_debug_mode()",
            torch.get_deterministic_debug_mode,
            torch.set_deterministic_debug_mode,
        ),
        _Setting("the hooks of saved tensors", _saved_tensor_hooks, _pop_saved_tensor_hooks),
        _attribute(torch.utils.deterministic, "fill_uninitialized_memory"),
        *(_autocast(device) for device in ("cpu", "cuda")),
        # The parts before the whole: written as a whole, "none" would undo them.
        *_precisions(),
        *(_attribute(backends.mkldnn, name) for name in ("enabled", "deterministic")),
        *(
            _attribute(backends.cudnn, name)
            for name in ("enabled", "deterministic", "benchmark", "benchmark_limit")
        ),
        *(
            _attribute(backends.cuda.matmul, name)
            for name in (
                "allow_fp16_reduced_precision_reduction",
                "allow_bf16_reduced_precision_reduction",
                "allow_fp16_accumulation",
            )
        ),
        *(_attention(name) for name in ("flash", "mem_efficient", "math", "cudnn")),
        _Setting(
            "torch.backends.mha.get_fastpath_enabled()",
            backends.mha.get_fastpath_enabled,
            backends.mha.set_fastpath_enabled,
        ),
        *(_attribute(backends.opt_einsum, name) for name in ("enabled", "strategy")),
        _attribute(backends.quantized, "engine"),
        _Setting(
            "torch.backends.nnpack",
            torch._C._get_nnpack_enabled,
            torch._C._set_nnpack_enabled,
        ),
    )


def _default_device() -> Any:
    import torch

    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else context.device


def _attribute(owner: Any, name: str) -> _Setting:
    """Return an attribute as a setting; one that this torch does not have is always None."""
    where = getattr(owner, "__name__", "torch.backends.cuda.matmul")
    return _Setting(
        f"{where}.{name}", lambda: getattr(owner, name, None), lambda was: setattr(owner, name, was)
    )


def _precisions() -> Iterator[_Setting]:
    import torch

    for backend, operation in (
        *(("mkldnn", each) for each in ("matmul", "conv", "rnn", "all")),
        *(("cuda", each) for each in ("matmul", "conv", "rnn", "all")),
        ("generic", "all"),
    ):
        yield _Setting(
            f"the FP32 precision of {backend}, {operation}",
            partial(torch._C._get_fp32_precision_getter, backend, operation),
            partial(torch._C._set_fp32_precision_setter, backend, operation),
        )


def _autocast(device: str) -> _Setting:
    import torch

    def write(was: tuple[bool, torch.dtype]) -> None:
        torch.set_autocast_enabled(device, was[0])
        torch.set_autocast_dtype(device, was[1])

    return _Setting(
        f"autocast on {device}",
        lambda: (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)),
        write,
    )


def _attention(kind: str) -> _Setting:
    from torch.backends import cuda

    return _Setting(
        f"torch.backends.cuda.{kind}_sdp_enabled()",
        getattr(cuda, f"{kind}_sdp_enabled"),
        getattr(cuda, f"enable_{kind}_sdp"),
    )


def _saved_tensor_hooks() -> Any:
    import torch

    return torch._C._autograd._top_saved_tensors_default_hooks(False)


def _pop_saved_tensor_hooks(was: Any) -> None:
    import torch

    while (now := _saved_tensor_hooks()) is not None and now != was:
        torch._C._autograd._pop_saved_tensors_default_hooks()


def _function_modes() -> list[Any]:
    from torch.overrides import _get_current_function_mode_stack

    stack: list[Any] = list(_get_current_function_mode_stack())  # type: ignore[no-untyped-call]
    return stack


def _pop_function_modes(was: list[Any]) -> None:
    from torch.overrides import _pop_mode, _push_mode

    while _function_modes():
        _pop_mode()  # type: ignore[no-untyped-call]
    for mode in was:
        _push_mode(mode)  # type: ignore[no-untyped-call]


def _dispatch_modes() -> list[Any]:
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    return list(_get_current_dispatch_mode_stack())


def _pop_dispatch_modes(was: list[Any]) -> None:
    from torch.utils._python_dispatch import _pop_mode, _push_mode

    while _dispatch_modes():
        _pop_mode()
    for mode in was:
        _push_mode(mode)

"""What ONNX Runtime is asked for: a provider, threads and its own options, all by its own names."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clipq.artifact_settings import SessionSettings
from clipq.errors import ArtifactError, did_you_mean, listed

__all__ = ["CPU", "Asked", "asked_of"]

CPU = "CPUExecutionProvider"

_CUDA = "CUDAExecutionProvider"
_OWN = {"intra_op_num_threads": "threads", "providers": "provider"}
"""Options that are said in a place of their own."""
_TELL_PROVIDERS = "session.record_ep_graph_assignment_info"
_ENTRIES = [
    b"\0" + prefix for prefix in (b"session.", b"optimization.", b"mlas.", b"memory.", b"ep.")
]
"""How configuration entries begin, as texts among the library's constants."""


class Asked:
    """A session's options and provider, checked.

    Args:
        options: onnxruntime's SessionOptions.
        provider: name of the execution provider.
        provider_options: of that provider.
        precision: what it executes float operations in; "" where it does not say.
    """

    def __init__(
        self, options: Any, provider: str, *, provider_options: Mapping[str, str], precision: str
    ) -> None:
        self.options = options
        self.provider = provider
        self.provider_options = dict(provider_options)
        self.precision = precision


def asked_of(onnxruntime: Any, session: SessionSettings) -> Asked:
    """Return what a session asks for; by default one thread, in order, on the CPU.

    Args:
        onnxruntime: the module `onnxruntime`.
        session: of the settings.

    Raises:
        ArtifactError: a provider, precision or option is unknown, or has no value that it takes.
    """
    provider = _provider(onnxruntime, session.provider)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, session.threads)
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what goes wrong is raised; the log would say it twice
    options.add_session_config_entry(_TELL_PROVIDERS, "1")
    of_provider: dict[str, str] = {}
    for name, value in session.options.items():
        if name in _OWN:
            raise ArtifactError(
                f"options may not name {name!r}",
                hint=f"write it as the session's {_OWN[name]}",
            )
        if "." in name:
            _add_entry(onnxruntime, options, name=name, value=_text(value))
        elif _is_attribute(options, name):
            _set_attribute(options, name=name, value=value)
        elif provider != CPU:
            of_provider[name] = _text(value)  # which refuses what it does not know
        else:
            raise ArtifactError(
                f"onnxruntime's session has no option {name!r}",
                hint=did_you_mean(name, _attributes(options)),
            )
    precision = _precision(session, provider=provider, of_provider=of_provider)
    return Asked(options, provider, provider_options=of_provider, precision=precision)


def _provider(onnxruntime: Any, name: str) -> str:
    if not name:
        return CPU
    available = onnxruntime.get_available_providers()
    if name in available:
        return name
    if name in onnxruntime.get_all_providers():
        raise ArtifactError(
            f"onnxruntime {onnxruntime.__version__} is installed without {name}",
            hint=f"it offers {', '.join(available)}; install the package that is built with it, "
            "for example onnxruntime-gpu",
        )
    raise ArtifactError(
        f"onnxruntime has no execution provider {name!r}", hint=did_you_mean(name, available)
    )


def _precision(session: SessionSettings, *, provider: str, of_provider: dict[str, str]) -> str:
    """Return what float operations run in, having asked the provider for it."""
    asked = session.precision
    bf16_on_arm = _text(session.options.get("mlas.enable_gemm_fastmath_arm64_bfloat16", "0"))
    if provider == CPU:
        offered = "bf16" if bf16_on_arm == "1" else "f32"
        if asked not in ("", offered):
            raise ArtifactError(
                f"{CPU} executes float operations in {offered}, not in {asked}",
                hint=f"write precision = {offered!r}; a graph that is to run in half precision is "
                "exported in half precision",
            )
        return offered
    if provider == _CUDA and asked in ("", "f32"):
        if asked:
            of_provider.setdefault("use_tf32", "0")
        offered = "f32" if of_provider.get("use_tf32") == "0" else "tf32"
        if asked and offered != asked:
            raise ArtifactError(
                f"{_CUDA} is asked for {asked} and for use_tf32",
                hint="leave out one of the two; with precision = 'f32' it does not use TF32",
            )
        return offered
    if asked:
        raise ArtifactError(
            f"{provider} is not told its precision by onnxruntime, so {asked} cannot be asked for",
            hint="leave precision out, and set the provider's own option in options",
        )
    return ""


def _add_entry(onnxruntime: Any, options: Any, *, name: str, value: str) -> None:
    """Add a configuration entry. Any name would be taken: it is looked for in the library."""
    binaries = list(map(_mapped, _binaries(onnxruntime)))
    if not any(binary.find(name.encode() + b"\0") >= 0 for binary in binaries):
        known = {found for binary in binaries for found in _entries(binary)}
        close = did_you_mean(name, known).partition("known: ")[0].strip()
        raise ArtifactError(
            f"onnxruntime {onnxruntime.__version__} knows no configuration entry {name!r}",
            hint=close or "the names are in onnxruntime_session_options_config_keys.h",
        )
    options.add_session_config_entry(name, value)


def _binaries(onnxruntime: Any) -> list[Path]:
    folder = Path(onnxruntime.__file__).parent / "capi"
    return [
        path for path in sorted(folder.iterdir()) if re.search(r"\.(so|pyd|dll|dylib)", path.name)
    ]


def _entries(binary: mmap.mmap) -> Iterator[str]:
    for beginning in _ENTRIES:
        at = binary.find(beginning)
        while at >= 0:
            end = binary.find(b"\0", at + 1)
            yield binary[at + 1 : end].decode(errors="replace")
            at = binary.find(beginning, end)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _attributes(options: Any) -> list[str]:
    return [name for name in dir(options) if _is_attribute(options, name)]


def _is_attribute(options: Any, name: str) -> bool:
    return not name.startswith("_") and not callable(getattr(options, name, len))


def _set_attribute(options: Any, *, name: str, value: object) -> None:
    before = getattr(options, name)
    members = getattr(type(before), "__members__", None)
    if members is not None:
        if value not in members:
            raise ArtifactError(
                f"option {name} = {value!r}", hint=f"write one of {listed(list(members), most=9)}"
            )
        value = members[value]
    elif type(value) is not type(before):
        raise ArtifactError(
            f"option {name} = {value!r}",
            hint=f"it takes {type(before).__name__}; its default is {before!r}",
        )
    setattr(options, name, value)


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)

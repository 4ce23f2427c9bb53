"""What is installed here, and what computes: Python, packages, pytest's plugin, devices."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.metadata import (
    PackageNotFoundError,
    distribution,
    entry_points,
    metadata,
    requires,
    version,
)

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from clipq.cli.onboarding.health import Context, Examination, Finding, State
from clipq.provenance import DISTRIBUTION

__all__ = ["EXAMINATIONS"]

_SHOWN = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "netcal",
    "torch-uncertainty",
    "pytest",
    "pytest-xdist",
)
_PLUGIN = "clipq.pytest_plugin"
_GIB = 2**30


_INSTALL = f"pip install {DISTRIBUTION} (or pip install -e . in a checkout)"


def _name(context: Context) -> Iterator[Finding]:
    """Say what clipq is installed as, and whether a stranger of that name lies beside it."""
    try:
        yield Finding(DISTRIBUTION, State.OK, version(DISTRIBUTION))
    except PackageNotFoundError:
        text = "not installed: clipq is imported from a folder, and pytest does not know its plugin"
        yield Finding(DISTRIBUTION, State.PROBLEM, text, _INSTALL)
    try:
        other = distribution("clipq")
    except PackageNotFoundError:
        return
    shared = any(path.parts[0] == "clipq" for path in other.files or ())
    text = f"{other.version}, another project's package, is installed" + (
        f": it writes into the same folder as {DISTRIBUTION}" if shared else " beside this one"
    )
    fix = f"pip uninstall clipq, then pip install --force-reinstall --no-deps {DISTRIBUTION}"
    yield Finding("clipq of the index", State.PROBLEM if shared else State.WARNING, text, fix)


def _python(context: Context) -> Iterator[Finding]:
    try:
        wanted = metadata(DISTRIBUTION)["Requires-Python"]
    except PackageNotFoundError:
        return  # said above
    running = ".".join(map(str, sys.version_info[:3]))
    if SpecifierSet(wanted).contains(running, prereleases=True):
        yield Finding("python", State.OK, f"{running} ({sys.executable})")
    else:
        yield Finding(
            "python", State.PROBLEM, f"{running}, needed: {wanted}", "install a newer one"
        )


def _packages(context: Context) -> Iterator[Finding]:
    """Compare what is installed with what clipq declares."""
    try:
        declared = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return  # said above
    others = 0
    for line in declared:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        finding = _package(requirement)
        if requirement.name in _SHOWN or finding.state is not State.OK:
            yield finding
        else:
            others += 1
    yield Finding("other packages", State.OK, f"{others}, all as declared")


def _package(requirement: Requirement) -> Finding:
    name, wanted = requirement.name, str(requirement.specifier)
    fix = f"pip install '{name}{wanted}'"
    try:
        installed = version(name)
    except PackageNotFoundError:
        return Finding(name, State.PROBLEM, f"not installed, needed: {wanted or 'any'}", fix)
    if not requirement.specifier.contains(installed, prereleases=True):
        return Finding(name, State.PROBLEM, f"{installed}, needed: {wanted}", fix)
    return Finding(name, State.OK, f"{installed} ({wanted})" if wanted else installed)


def _pairs(context: Context) -> Iterator[Finding]:
    """Check that torch is the one that torchvision was built for, and that its operators load."""
    for line in requires("torchvision") or ():
        requirement = Requirement(line)
        installed = version("torch") if requirement.name == "torch" else ""
        if installed and not requirement.specifier.contains(installed, prereleases=True):
            yield Finding(
                "torch and torchvision",
                State.PROBLEM,
                f"torchvision {version('torchvision')} was built for torch"
                f"{requirement.specifier}, installed is {installed}",
                "install both at once: pip install --upgrade torch torchvision",
            )
            return
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    try:
        torchvision.ops.nms(boxes, torch.ones(1), 0.5)
    except (RuntimeError, NotImplementedError) as error:
        yield Finding(
            "torchvision operators",
            State.PROBLEM,
            f"they do not load: {str(error).splitlines()[0]}",
            "torch and torchvision come from different sources: reinstall both from one index",
        )
        return
    yield Finding("torchvision operators", State.OK, "they load")


def _open_clip(context: Context) -> Iterator[Finding]:
    import open_clip

    count = len(open_clip.list_models())
    yield Finding("open_clip", State.OK, f"imports; {count} architectures")


def _plugin(context: Context) -> Iterator[Finding]:
    points = [point for point in entry_points(group="pytest11") if point.value == _PLUGIN]
    asked = context.environment.get("PYTEST_ADDOPTS", "")
    if not points:
        yield Finding("pytest plugin", State.PROBLEM, "not registered with pytest", _INSTALL)
    elif context.environment.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD"):
        fix = f"unset it, or run pytest -p {_PLUGIN}"
        text = "PYTEST_DISABLE_PLUGIN_AUTOLOAD is set: pytest does not load it"
        yield Finding("pytest plugin", State.WARNING, text, fix)
    elif f"no:{_PLUGIN}" in asked:
        text = f"PYTEST_ADDOPTS turns it off: {asked}"
        yield Finding("pytest plugin", State.WARNING, text, "take that out of PYTEST_ADDOPTS")
    else:
        yield Finding("pytest plugin", State.OK, f"pytest loads {_PLUGIN}")


def _processors(context: Context) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = context.settings.threads if context.settings else 1
    text = f"{cores} cores for this process, {threads} thread{'s' if threads > 1 else ''} a worker"
    if cores and threads > cores:
        fix = f"threads = 1 in clipq.toml, at most {cores}"
        yield Finding("processors", State.WARNING, text, fix)
    else:
        yield Finding("processors", State.OK, text)


def _gpus(context: Context) -> Iterator[Finding]:
    import torch

    settings, visible = context.settings, context.environment.get("CUDA_VISIBLE_DEVICES")
    limited = "" if visible is None else f"; CUDA_VISIBLE_DEVICES={visible!r}"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        if settings and (settings.device.startswith("cuda") or settings.backend == "triton"):
            asked = f"device = {settings.device!r}, backend = {settings.backend!r}"
            text = f"{asked}, but torch sees no GPU{limited}"
            fix = "device = 'cpu' and backend = 'auto', or a torch built for CUDA and a driver"
            yield Finding("GPU", State.PROBLEM, text, fix)
        else:
            yield Finding("GPU", State.OK, f"none, none needed{limited}")
        return
    for index in range(count):
        yield _gpu(index, limited)


def _gpu(index: int, limited: str) -> Finding:
    import torch

    from clipq.kernels.device import CAPABILITY

    name = torch.cuda.get_device_name(index)
    free, total = torch.cuda.mem_get_info(index)
    actual = torch.cuda.get_device_capability(index)
    text = (
        f"{name}, {free / _GIB:.1f} of {total / _GIB:.1f} GiB free, "
        f"compute capability {actual[0]}.{actual[1]}{limited}"
    )
    if actual < CAPABILITY:
        least = ".".join(map(str, CAPABILITY))
        fix = f'clipq\'s kernels need {least}: evaluation uses the reference, backend = "reference"'
        return Finding(f"GPU {index}", State.WARNING, text, fix)
    return Finding(f"GPU {index}", State.OK, text)


EXAMINATIONS = (
    Examination("name", _name),
    Examination("python", _python),
    Examination("packages", _packages),
    Examination("torch and torchvision", _pairs),
    Examination("open_clip", _open_clip),
    Examination("pytest plugin", _plugin),
    Examination("processors", _processors),
    Examination("GPU", _gpus),
)

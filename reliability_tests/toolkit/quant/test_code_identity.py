"""Whatever decides what a quantizer does is a part of what identifies its results."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from clipq.dependencies import installed
from clipq.dependencies.file_reads import watching_imports
from clipq.errors import QuantizerError
from clipq.quant import Calibration, code_identity, quantize, quantizers
from clipq.quant.code_identity import method_code, method_code_hash

Load = Callable[..., None]

METHOD = """
from clipq.quant import quantizers
{imports}

@quantizers.register("mine"{declared})
def mine(model, spec, calibration):
    {body}
    return model
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """The folder of a project that offers quantizer "mine"."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "clipq.toml").touch()
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def load(project) -> Iterator[Load]:
    """Write files and import the plug-in afresh, as the next process would."""

    def forget() -> None:
        if "mine" in quantizers.names():
            quantizers.remove("mine")
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", "") or "").startswith(str(project)):
                del sys.modules[name]
        for folder in project.rglob("__pycache__"):
            for path in folder.iterdir():
                path.unlink()
        importlib.invalidate_caches()

    def load(
        imports: str = "",
        body: str = "pass",
        declared: str = "",
        files: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        forget()
        text = METHOD.format(imports=imports, body=body, declared=declared)
        for name, content in {"plugin.py": text, **files}.items():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_text(content)
        with watching_imports():
            importlib.import_module("plugin")

    yield load
    forget()


def parts() -> dict[str, str]:
    return dict(method_code("mine").parts)


IMPORTS = {
    "from": ("from helper import SCALE", "pass"),
    "plain": ("import helper", "helper.SCALE"),
    "in a function": ("", "from helper import SCALE"),
    "by name": ("from importlib import import_module as load", "load('helper').SCALE"),
    "by a constant": ("import importlib\nNAME = 'helper'", "importlib.import_module(NAME)"),
    "dunder": ("", "__import__('helper')"),
    "of a package": ("from package import SCALE", "pass"),
    "nested": ("import package.deep.inner", "pass"),
    "all": ("from package.deep.inner import *", "pass"),
    "on the way": ("import between", "between.helper"),
    "computed, but loaded": (
        "import importlib\nh = importlib.import_module('hel' + 'per')",
        "pass",
    ),
    "a function alone": ("from elsewhere import scale", "scale()"),
}
HELPER = {
    "helper.py": "SCALE = {}\ndef scale(): return SCALE\n",
    "between.py": "import helper\n",
    "elsewhere.py": "import sys, helper\nscale = getattr(sys.modules['hel' 'per'], 'scale')\n",
    "package/__init__.py": "from .near import SCALE\n",
    "package/near.py": "from . import far\nfrom .deep.inner import SCALE\n",
    "package/far.py": "",
    "package/deep/__init__.py": "",
    "package/deep/inner.py": "from helper import SCALE\n",
}


@pytest.mark.parametrize("how", IMPORTS)
def test_an_edit_of_what_the_plugin_imports_is_another_method(load, how):
    imports, body = IMPORTS[how]
    hashes = set()
    for scale in ("1.0", "2.0"):
        files = {name: text.format(scale) for name, text in HELPER.items()}
        load(imports, body, files=files)
        assert "file helper.py" in parts()
        hashes.add(method_code_hash("mine"))
    assert len(hashes) == 2


def test_what_is_not_imported_does_not_count(load, project):
    load("import json, numpy", files={"unrelated.py": "A = 1"})
    before = method_code_hash("mine")
    load("import json, numpy", files={"unrelated.py": "A = 2"})
    assert method_code_hash("mine") == before
    assert sorted(parts()) == ["clipq.quant", "file plugin.py", "package numpy"]


def test_the_module_that_registers_a_method_made_elsewhere_counts(load):
    hashes = set()
    for bits in (3, 4):
        maker = "def make(bits):\n    return lambda model, spec, calibration: bits\n"
        add = f"from maker import make\nquantizers.add('made', make({bits}))"
        load(add, files={"maker.py": maker})
        try:
            hashes.add(method_code_hash("made"))
            assert {"file plugin.py", "file maker.py"} < set(dict(method_code("made").parts))
        finally:
            quantizers.remove("made")
    assert len(hashes) == 2


READS = {
    "by its name": ("import numpy as np", "np.load('scales.npy')", ""),
    "beside the module": (
        "from pathlib import Path",
        "(Path(__file__).parent / 'scales.npy').read_bytes()",
        "",
    ),
    "by a declared name": ("", "open('scales' + '.npy').close()", ", files=('scales.npy',)"),
    "by a declared glob": ("", "open('scales' + '.npy').close()", ", files=('*.npy',)"),
}


@pytest.mark.parametrize("how", READS)
def test_an_edit_of_a_file_that_is_read_is_another_method(load, project, vit, sample, how):
    hashes = set()
    for scale in (1.0, 2.0):
        np.save(project / "scales.npy", np.array(scale))
        load(*READS[how])
        hashes.add(method_code_hash("mine"))
    assert len(hashes) == 2
    assert "file scales.npy" in parts()
    if "declared" in how:
        quantize(vit, "mine", sample.calibration)  # nothing that it reads is missing


@pytest.mark.parametrize(
    ("imports", "body"),
    [
        ("", "open('scales' + '.npy').close()"),
        ("import numpy as np", "np.load('scales' + '.npy')"),
        ("", "model.visual.register_forward_pre_hook(lambda *_: open('scales' + '.npy').close())"),
        ("import os\nhandle = os.open('scales' + '.npy', os.O_RDONLY)\nos.close(handle)", "pass"),
        ("import reader", "pass"),
        ("", "import sys; sys.path.append('.'); exec('import scales' + '.npy')"),
    ],
    ids=["quantizing", "numpy", "encoding", "importing", "an import's import", "a hidden import"],
)
def test_a_file_that_is_read_and_not_hashed_is_refused_by_name(
    load, project, vit, sample, imports, body
):
    np.save(project / "scales.npy", np.array(1.0))
    (project / "scales").mkdir()
    (project / "scales" / "npy.py").touch()
    load(imports, body, files={"reader.py": "open('scales' + '.npy').close()"})
    with pytest.raises(
        QuantizerError, match=r"'mine' reads .*npy(\.py)?, which is no part of"
    ) as e:
        quantize(vit, "mine", sample.calibration)
    assert '@quantizers.register("mine", files=("' in e.value.hint


def test_what_clipq_and_python_read_and_what_the_method_wrote_is_not_asked_about(
    load, project, vit, sample
):
    (project / "images.bin").write_bytes(b"calibration data")
    (project / ".cache").mkdir()
    (project / ".cache" / "kept").touch()

    def images():
        (project / "images.bin").read_bytes()
        yield from sample.calibration.images()

    load(
        "import tempfile",
        "list(calibration.images()); import colorsys; open('exported' + '.onnx', 'w').close(); "
        "open('exported' + '.onnx').close(); open('.cache/' + 'kept').close()",
    )
    quantize(vit, "mine", Calibration(images=images, texts=sample.calibration.texts))


@pytest.mark.parametrize(
    ("imports", "body", "declared"),
    [
        ("import os", "os.environ['MY_SCALE']", ""),
        ("import os", "os.environ.get('MY_SCALE', '1')", ""),
        ("from os import environ as e, getenv as g", "g('MY_SCALE')", ""),
        ("import os\nNAME = 'MY_SCALE'", "'x' in os.environ and os.getenv(NAME)", ""),
        ("", "pass", ", environment=('MY_SCALE',)"),
    ],
)
def test_an_environment_variable_that_is_read_counts(load, monkeypatch, imports, body, declared):
    load(imports, body, declared)
    hashes = set()
    for value in (None, "", "1", "2"):
        if value is not None:
            monkeypatch.setenv("MY_SCALE", value)
        hashes.add(method_code_hash("mine"))
    assert len(hashes) == 4
    monkeypatch.setenv("ANOTHER", "1")
    assert method_code_hash("mine") in hashes


def test_the_version_of_the_library_that_does_the_work_counts(load, monkeypatch):
    load("", "import torchao")
    monkeypatch.setattr(installed, "_providers", lambda: {"torchao": ["torchao"]})
    real, hashes = metadata.distribution, set()

    class Fake:
        requires = ("a-kernel-library>=1; python_version > '3'", "tests; extra == 'dev'")

        def __init__(self, version):
            self.version = version

    for versions in (("0.14", "1"), ("0.15", "1"), ("0.15", "2")):
        fakes = dict(zip(("torchao", "a-kernel-library"), map(Fake, versions), strict=True))
        monkeypatch.setattr(
            installed, "distribution", lambda name, fakes=fakes: fakes.get(name) or real(name)
        )
        hashes.add(method_code_hash("mine"))
    assert len(hashes) == 3
    assert parts()["package torchao"] == "0.15"
    assert parts()["package a-kernel-library"] == "2"


def test_looking_at_what_imports_pip_leaves_setuptools_as_it_was(load, monkeypatch):
    """Setuptools gives its `distutils` up for good where pip is looked for as an import does."""
    hack = pytest.importorskip("_distutils_hack")
    finder = hack.DistutilsMetaFinder()
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    load("", "import pip, json, torchao, no_such_module")
    assert method_code("mine").unknown == ()
    assert "package torchao" in parts()
    assert "spec_for_distutils" not in vars(finder)


@pytest.mark.parametrize(
    ("imports", "body", "said"),
    [
        ("", "__import__(spec.method)", "plugin.py, line 7: imports a module whose name is comp"),
        ("import os", "os.getenv(spec.method)", "reads an environment variable whose name is comp"),
        ("import os", "dict(os.environ)", "uses all environment variables"),
        ("", "import broken", "broken.py cannot be read as Python"),
    ],
)
def test_what_cannot_be_known_is_said(load, imports, body, said):
    load(imports, body, files={"broken.py": "def :"})
    assert len(method_code("mine").unknown) == 1
    assert said in method_code("mine").unknown[0]


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (", files=('gone.npy',)", "declares the file 'gone.npy', which is not there"),
        (", files='scales.npy'", "declares files = 'scales.npy', not a tuple of texts"),
        (", environment=(1,)", r"declares environment = \(1,\), not a tuple of texts"),
    ],
)
def test_a_wrong_declaration_is_an_error(load, declared, said):
    load(declared=declared)
    with pytest.raises(QuantizerError, match=said):
        method_code("mine")


def test_the_hash_is_the_same_wherever_the_project_lies(load, project, monkeypatch):
    load("import helper", files={"helper.py": "SCALE = 1"})
    first = method_code_hash("mine")
    other = project.parent / "elsewhere"
    project.rename(other)
    monkeypatch.syspath_prepend(str(other))
    monkeypatch.chdir(other)
    quantizers.remove("mine")
    for name in ("plugin", "helper"):
        del sys.modules[name]
    importlib.invalidate_caches()
    importlib.import_module("plugin")
    try:
        assert Path(sys.modules["plugin"].__file__).parent == other
        assert method_code_hash("mine") == first
    finally:
        quantizers.remove("mine")
        for name in ("plugin", "helper"):
            del sys.modules[name]


def test_an_edit_anywhere_in_the_package_changes_the_hash_of_every_method(
    load, tmp_path, monkeypatch
):
    load()
    sources = sorted(Path(code_identity.__file__).parent.glob("*.py"))
    copy = tmp_path / "quant"
    copy.mkdir()
    for path in sources:
        (copy / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(code_identity, "__file__", str(copy / "code_identity.py"))
    for method in ("rtn:w8", "mine"):
        hashes = {method_code_hash(method)}
        for path in sources:
            with (copy / path.name).open("a") as file:
                file.write("# edited\n")
            hashes.add(method_code_hash(method))
        assert len(hashes) == 1 + len(sources)

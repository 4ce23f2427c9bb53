"""`clipq doctor` names what is wrong and how to mend it; it never crashes and tells no password."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import shutil

import pytest
import torch

from clipq.cli.main import main
from clipq.cli.onboarding import hub, installation, project, storage_health
from clipq.cli.onboarding.health import Context, Examination, Finding, State, examine
from clipq.errors import ModelError, QuantizerError
from clipq.models.source import ModelSource
from clipq.settings import Settings, load_settings

TODAY = datetime.date(2026, 6, 1)
PASSWORD = "s3cret-of-the-store"


def diagnosed(
    examinations: tuple[Examination, ...], settings: Settings | None = None, **environment: str
) -> dict[str, Finding]:
    return {one.name: one for one in examine(examinations, Context(settings, environment, TODAY))}


@pytest.fixture
def whole(project, monkeypatch) -> Settings:
    """Settings of a project with everything in its place."""
    monkeypatch.chdir(project.root)
    return load_settings(project.root / "clipq.toml")


def problems(found: dict[str, Finding]) -> set[str]:
    return {name for name, one in found.items() if one.state is State.PROBLEM}


# -- the command --------------------------------------------------------------------------------


def test_a_whole_project_has_no_problem(whole, capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "no problems" in shown
    for words in ("torchvision operators", "baseline vit-clean", "margins", "history store"):
        assert words in shown


def test_a_problem_makes_it_fail_and_comes_with_its_fix(whole, capsys):
    (whole.baselines / "vit-clean.json").unlink()
    assert main(["doctor", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["problems"]) == ("clipq-doctor/1", 1)
    wrong = [check for check in document["checks"] if check["state"] == "problem"]
    assert [check["fix"] for check in wrong] == ["clipq baseline create vit-clean"]


def test_without_settings_the_installation_is_still_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--json"]) == 1
    states = {c["name"]: c["state"] for c in json.loads(capsys.readouterr().out)["checks"]}
    assert states["settings"] == "problem"
    assert states["torch"] == "ok"
    assert states["baselines"] == "not checked"


def test_malformed_settings_are_a_problem_and_an_absent_file_a_mistake(whole, capsys):
    text = whole.path.read_text()
    whole.path.write_text(text.replace("[clipq]", "[clipq]\npolicy = 'strict'"))
    assert main(["doctor"]) == 1
    assert "'strict'" in capsys.readouterr().out
    assert main(["--config", "absent.toml", "doctor"]) == 2


def test_nothing_is_written(whole, capsys):
    before = sorted(path for path in whole.root.rglob("*"))
    main(["doctor"])
    assert sorted(path for path in whole.root.rglob("*")) == before


# -- checks are isolated ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (QuantizerError("no such method", hint="name another"), "no such method"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (SystemExit(3), "SystemExit"),
        (ImportError(), "ImportError"),
    ],
)
def test_a_check_that_raises_is_a_problem_and_the_next_one_runs(error, text):
    def raising(context: Context):
        yield Finding("first", State.OK, "")
        raise error

    def fine(context: Context):
        yield Finding("last", State.OK, "")

    found = diagnosed((Examination("raises", raising), Examination("fine", fine)))
    assert list(found) == ["first", "raises", "last"]
    assert found["raises"].state is State.PROBLEM
    assert text in found["raises"].text


def test_what_a_secretive_check_raises_is_named_and_not_shown():
    def raising(context: Context):
        raise RuntimeError(f"cannot connect with {PASSWORD}")
        yield

    found = diagnosed((Examination("store", raising, secretive=True),))
    assert "RuntimeError" in found["store"].text
    assert PASSWORD not in found["store"].text


# -- installation -------------------------------------------------------------------------------


def test_an_old_and_an_absent_package_are_problems(monkeypatch):
    real = installation.version

    def version(name: str) -> str:
        if name == "netcal":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name == "torch" else real(name)

    monkeypatch.setattr(installation, "version", version)
    found = diagnosed(installation.EXAMINATIONS[2:4])
    assert problems(found) == {"torch", "netcal", "torch and torchvision"}
    assert found["netcal"].fix.startswith("pip install 'netcal>=")
    assert "installed is 1.0" in found["torch and torchvision"].text


def test_a_torchvision_without_operators_is_a_problem(monkeypatch):
    import torchvision

    def missing(*arguments: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr(torchvision.ops, "nms", missing)
    found = diagnosed((installation.EXAMINATIONS[3],))
    assert found["torchvision operators"].state is State.PROBLEM
    assert "nms does not exist" in found["torchvision operators"].text


@pytest.mark.parametrize(
    "environment",
    [{"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, {"PYTEST_ADDOPTS": "-p no:clipq.pytest_plugin"}],
)
def test_a_plugin_that_the_environment_turns_off_is_a_warning(environment):
    check = next(c for c in installation.EXAMINATIONS if c.name == "pytest plugin")
    assert diagnosed((check,))["pytest plugin"].state is State.OK
    assert diagnosed((check,), **environment)["pytest plugin"].state is State.WARNING


GPU = next(c for c in installation.EXAMINATIONS if c.name == "GPU")


def test_a_gpu_that_the_settings_ask_for_and_that_is_not_there_is_a_problem(whole, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert diagnosed((GPU,), whole, CUDA_VISIBLE_DEVICES="")["GPU"].state is State.OK
    whole.path.write_text(whole.path.read_text().replace("[clipq]", '[clipq]\ndevice = "cuda"'))
    found = diagnosed((GPU,), load_settings(whole.path), CUDA_VISIBLE_DEVICES="")
    assert found["GPU"].state is State.PROBLEM
    assert "CUDA_VISIBLE_DEVICES=''" in found["GPU"].text


@pytest.mark.parametrize(
    ("capability", "state"), [((7, 5), State.WARNING), ((8, 0), State.OK), ((9, 0), State.OK)]
)
def test_a_gpu_too_old_for_the_kernels_is_a_warning(monkeypatch, capability, state):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "a GPU")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (2**30, 2**32))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    found = diagnosed((GPU,))["GPU 0"]
    assert found.state is state
    assert "1.0 of 4.0 GiB free" in found.text


# -- project ------------------------------------------------------------------------------------


def test_a_plugin_that_does_not_import_is_a_problem(whole):
    whole.path.write_text(
        whole.path.read_text().replace("[clipq]", "[clipq]\nplugins = ['nowhere']")
    )
    found = diagnosed(project.EXAMINATIONS, load_settings(whole.path))
    assert "nowhere" in found["plugins"].text
    assert found["plugins"].state is State.PROBLEM


def test_models_and_probes_that_are_not_there_are_named(whole):
    text = whole.path.read_text()
    text = text.replace("models/vit-clean", "models/gone").replace("data/digits", "data/gone")
    whole.path.write_text(text)
    found = diagnosed(project.EXAMINATIONS, load_settings(whole.path))
    assert {"model vit-clean", "probe digits"} <= problems(found)
    assert "2 of 3 are there" in found["probes"].text


def test_a_missing_shard_is_found_without_reading_any(whole, tmp_path):
    source = whole.in_distribution.source.partition(":")[2]
    shutil.copytree(source, tmp_path / "copy")
    whole.path.write_text(whole.path.read_text().replace(source, str(tmp_path / "copy")))
    (tmp_path / "copy" / "test" / "1.tar").unlink()
    found = diagnosed(project.EXAMINATIONS, load_settings(whole.path))
    assert "1.tar" in found["probe id"].text


def test_hub_models_are_looked_up_in_the_cache_alone(whole, monkeypatch, tmp_path):
    text = whole.path.read_text()
    start = text.index("local-dir:")
    source = text[start : text.index('"', start)]
    whole.path.write_text(text.replace(source, "ViT-B-32/laion2b_s34b_b79k"))
    settings = load_settings(whole.path)
    models = next(c for c in project.EXAMINATIONS if c.name == "models")
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    assert diagnosed((models,), settings)["model vit-clean"].state is State.WARNING
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(tmp_path))
    assert diagnosed((models,), settings)["model vit-clean"].state is State.OK
    with pytest.raises(ModelError, match="no pretrained tag 'laion'"):
        hub.cached_weights(ModelSource.parse("ViT-B-32/laion", base_dir=tmp_path))


@pytest.mark.parametrize("damage", ["altered", "truncated", "lacking", "vanished", "malformed"])
def test_a_baseline_that_cannot_be_judged_against_is_a_problem(whole, damage):
    path = whole.baselines / "vit-clean.json"
    columns = path.with_suffix(".safetensors")
    document = json.loads(path.read_text())
    if damage == "altered":
        content = bytearray(columns.read_bytes())
        content[-1] ^= 1
        columns.write_bytes(content)
    elif damage == "truncated":
        columns.write_bytes(columns.read_bytes()[:1000])
    elif damage == "lacking":
        del document["metrics"]["id.top1"]
    elif damage == "vanished":
        document["metrics"]["id.new"] = document["metrics"]["id.top1"]
    path.write_text("{" if damage == "malformed" else json.dumps(document))
    found = diagnosed(project.EXAMINATIONS, whole)
    assert problems(found) == {"baseline vit-clean"}
    assert found["baseline vit-clean"].fix


def test_margins_that_leave_a_case_out_are_a_problem(whole):
    whole.margins.write_text("[[margin]]\n[margin.metrics]\ntop1 = 0.01\n")
    found = diagnosed(project.EXAMINATIONS, whole)
    assert problems(found) == {"margins"}


def test_an_expired_waiver_and_one_of_no_case_are_problems(whole):
    entry = '[[waiver]]\ncases = ["{}"]\nreason = "r"\nowner = "o"\nexpires = {}\n'
    whole.waivers.write_text(entry.format("*/rtn:w8/id.top1", "2026-12-01"))
    assert diagnosed(project.EXAMINATIONS, whole)["waivers"].state is State.OK
    whole.waivers.write_text(entry.format("*/rtn:w8/id.top1", "2026-05-01"))
    assert "expired" in diagnosed(project.EXAMINATIONS, whole)["waivers"].text
    whole.waivers.write_text(entry.format("*/rtn:w2/id.top1", "2026-12-01"))
    assert "matches no case" in diagnosed(project.EXAMINATIONS, whole)["waivers"].text


# -- storage ------------------------------------------------------------------------------------


def test_a_cache_that_is_no_folder_is_a_problem(whole, tmp_path):
    (tmp_path / "file").write_text("")
    text = whole.path.read_text().replace(str(whole.cache), str(tmp_path / "file" / "cache"))
    whole.path.write_text(text)
    found = diagnosed(storage_health.EXAMINATIONS, load_settings(whole.path))
    assert "is not a folder" in found["cache"].text


def test_a_cache_that_cannot_be_written_and_a_full_disk_are_told(whole, monkeypatch):
    usage = shutil.disk_usage(whole.root)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert diagnosed(storage_health.EXAMINATIONS, whole)["cache"].state is State.WARNING

    def refused(**how: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage_health.tempfile, "TemporaryFile", refused)
    assert problems(diagnosed(storage_health.EXAMINATIONS, whole)) == {"cache", "report folder"}


def test_a_store_is_looked_at_and_not_made(whole):
    path = whole.root / ".clipq" / "history.db"
    assert "none yet" in diagnosed(storage_health.EXAMINATIONS, whole)["history store"].text
    assert not path.exists()
    from clipq.history.store import open_store

    with open_store(whole.history.store, root=whole.root):
        pass
    found = diagnosed(storage_health.EXAMINATIONS, whole)["history store"]
    assert (found.state, "schema" in found.text) == (State.OK, True)
    path.write_bytes(b"no database at all, but a text of some length" * 50)
    assert diagnosed(storage_health.EXAMINATIONS, whole)["history store"].state is State.PROBLEM


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{PASSWORD}@127.0.0.1:9/history",
        f"postgresql://user:{PASSWORD}@127.0.0.1:port/history",
        f"mysql://user:{PASSWORD}@host/history",
        f"postgresql://127.0.0.1:9/history?password={PASSWORD}",
    ],
)
def test_a_stores_password_is_never_shown(whole, monkeypatch, capfd, url):
    monkeypatch.setenv("CLIPQ_STORE", url)
    assert main(["doctor"]) == 1
    shown = capfd.readouterr()
    assert "PROBLEM  history store" in shown.out
    assert PASSWORD not in shown.out + shown.err


def test_a_store_without_its_libraries_is_not_checked(whole, monkeypatch):
    monkeypatch.setattr(storage_health, "find_spec", lambda name: None)
    found = diagnosed(storage_health.EXAMINATIONS, whole)["history store"]
    assert (found.state, found.text) == (State.SKIPPED, "sqlalchemy is not installed")

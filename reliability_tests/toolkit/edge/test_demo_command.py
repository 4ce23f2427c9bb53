"""`clipq demo` lays out a project that gates, never writes over anything, and tells the truth."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import clipq
from clipq.cases import Case
from clipq.cli import demo
from clipq.cli.main import main
from clipq.cli.onboarding.demo_files import MODELS, SETTINGS
from clipq.cli.onboarding.demo_project import Origin, lay_out, origin, untouched
from clipq.cli.onboarding.walk import walk
from clipq.errors import ClipqError
from clipq.gating.baseline import load_baseline
from clipq.gating.matrix import Matrix
from clipq.records import CaseResult, RunRecord
from clipq.settings import load_settings
from clipq.verdicts import Verdict


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as it is written; tests change copies of it."""
    folder = tmp_path_factory.mktemp("demo") / "it"
    lay_out(folder)
    return folder


@pytest.fixture
def laid_out(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "demo"))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# -- what is written ----------------------------------------------------------------------------


def test_the_project_is_whole_and_every_case_has_its_margin_and_its_fp32_value(original):
    settings = load_settings(original / "clipq.toml")
    assert [model.name for model in settings.models] == ["vit-clean", "siglip"]
    assert len(settings.probes) == 5
    matrix = Matrix(settings)
    assert len(matrix.cases) == 60  # with vanished ones, were there any; margins are checked, too
    assert {case.quantizer for case in matrix.cases} == {"rtn:w8a8", "rtn:w4a4"}
    for model in MODELS:
        stored = load_baseline(original / "baselines", model)
        assert set(stored.values) == {case.key for case in matrix.cases if case.model == model}
        reviewed = load_baseline(origin().baselines, model)
        assert all(reviewed.values[key] == value for key, value in stored.values.items())


def test_models_and_images_are_the_embedded_ones(original):
    for part in ("models/siglip", "models/vit-clean", "data/shapes", "data/captions"):
        assert contents(original / part) == contents(origin().world / part)


def test_nothing_is_written_again_and_what_is_missing_comes_back(laid_out, capsys):
    before = contents(laid_out)
    gone = ["data/shapes/test/1.tar", "baselines/siglip.safetensors", "baselines/margins.toml"]
    for name in gone:
        (laid_out / name).unlink()
    (laid_out / "clipq.toml").write_text(SETTINGS + "# mine\n")
    (laid_out / "notes.txt").write_text("mine")
    assert main(["demo", str(laid_out), "--no-gate"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n  written ") == 3
    assert f"cd {laid_out}" in said
    after = contents(laid_out)
    assert after.pop("notes.txt") == b"mine"
    assert after.pop("clipq.toml").endswith(b"# mine\n")
    assert after == {name: before[name] for name in before if name != "clipq.toml"}
    assert not untouched(load_settings(laid_out / "clipq.toml"))


def test_a_model_that_was_taken_out_of_the_settings_needs_no_baseline(laid_out):
    head, _, rest = SETTINGS.partition('[[models]]\nname = "siglip"')
    (laid_out / "clipq.toml").write_text(head + rest[rest.index("[[probes]]") :])
    for path in laid_out.glob("baselines/siglip.*"):
        path.unlink()
    lay_out(laid_out)
    assert not (laid_out / "baselines" / "siglip.json").exists()


@pytest.mark.parametrize(
    ("fill", "says"),
    [
        (lambda path: path.mkdir() or (path / "thesis.tex").touch(), "thesis.tex"),
        (lambda path: path.mkdir() or (path / "clipq.toml").write_text("[clipq]"), "clipq.toml"),
        (lambda path: path.touch(), "is no folder"),
        (lambda path: path.symlink_to("nowhere"), "is no folder"),
    ],
    ids=["files", "settings", "file", "dangling link"],
)
def test_what_is_not_its_own_is_refused(tmp_path, capsys, fill, says):
    folder = tmp_path / "mine"
    fill(folder)
    before = contents(tmp_path)
    assert main(["demo", str(folder)]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "name a new or empty folder" in said
    assert contents(tmp_path) == before


def test_an_installation_has_the_files_as_package_data_and_one_without_them_says_so(
    tmp_path, monkeypatch
):
    package = tmp_path / "site-packages" / "clipq"
    package.mkdir(parents=True)
    monkeypatch.setattr(clipq, "__file__", str(package / "__init__.py"))
    with pytest.raises(ClipqError, match=r"(?s)lacks the models .*--no-deps pytest-clipq"):
        lay_out(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
    (package / "demo" / "models" / MODELS[0]).mkdir(parents=True)
    assert origin() == Origin(package / "demo", package / "demo" / "baselines")


def test_init_passes_over_it(laid_out):
    assert [str(path) for path in walk(laid_out.parent).folders] == ["."]
    assert len(walk(laid_out).folders) > 5


# -- what is measured ---------------------------------------------------------------------------


def test_its_gate_passes_eight_bits_and_blocks_four(project, laid_out):
    shutil.move(laid_out, project.root / "try")
    # fmt: off
    done = project.run("clipq", "--config", "try/clipq.toml", "gate", "-n0", "--quiet", "--cache",
                       str(project.cache), "--model", "vit-clean", "--metric", "top1",
                       "--probe", "id")
    # fmt: on
    assert done.returncode == 1, done.stdout + done.stderr
    record = json.loads((project.root / "try/.clipq/report/report.json").read_text())
    judged = {case["quantizer"]: case for case in record["cases"]}
    assert {name: case["verdict"] for name, case in judged.items()} == {
        "rtn:w8a8": "pass",
        "rtn:w4a4": "fail",
    }
    assert 0.08 < judged["rtn:w4a4"]["estimate"]["loss"] < 0.14


# -- what is said of it -------------------------------------------------------------------------

Gate = Callable[[dict[str, Verdict], int], list[list[str]]]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, laid_out: Path) -> Gate:
    """Have the gate write a record of given verdicts by quantizer, or none, and exit."""

    def made(verdicts: dict[str, Verdict], code: int) -> list[list[str]]:
        called: list[list[str]] = []

        def written(arguments: list[str]) -> int:
            called.append(arguments)
            if verdicts:
                cases = tuple(
                    CaseResult(Case.parse(f"{model}/{quantizer}/id.top1"), verdict)
                    for model in MODELS
                    for quantizer, verdict in verdicts.items()
                )
                path = laid_out / ".clipq" / "report" / "report.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(RunRecord("ci", len(cases), cases).to_plain()))
            return code

        monkeypatch.setattr(sys.modules["clipq.cli.main"], "main", written)
        return called

    return made


RIGHT = {"rtn:w8a8": Verdict.PASS, "rtn:w4a4": Verdict.FAIL}


@pytest.mark.parametrize(
    ("verdicts", "gated", "exits", "says"),
    [
        (RIGHT, 1, 0, "as it should be"),
        (RIGHT | {"rtn:w8a8": Verdict.INCONCLUSIVE}, 1, 0, "as it should be"),
        (RIGHT | {"rtn:w8a8": Verdict.SUSPECT}, 1, 1, "rtn:w8a8: blocked by 1 suspect"),
        (RIGHT | {"rtn:w4a4": Verdict.PASS}, 0, 1, "rtn:w4a4: passes ci"),
        (RIGHT | {"rtn:w4a4": Verdict.SUSPECT}, 1, 1, "rtn:w4a4: blocked by 1 suspect"),
        (RIGHT | {"rtn:w4a4": Verdict.ERROR}, 1, 1, "rtn:w4a4: blocked by 1 error"),
        ({"rtn:w4a4": Verdict.FAIL}, 1, 1, "vit-clean/rtn:w8a8: was not judged"),
        (dict.fromkeys(RIGHT, Verdict.DRIFTED), 1, 1, "clipq baseline update --reason"),
        ({}, 130, 130, "goes on from here"),
        ({}, 2, 2, "goes on from here"),
        ({}, 1, 1, "did not get to its end"),
        ({}, 0, 1, "did not get to its end"),
    ],
)
def test_it_succeeds_where_the_gate_judged_as_it_should(
    laid_out, gate, capsys, verdicts, gated, exits, says
):
    called = gate(verdicts, gated)
    assert demo.run(_options(laid_out), ()) == exits
    assert says in capsys.readouterr().out
    assert called == [["--config", str(laid_out / "clipq.toml"), "gate", "-n", "0"]]


def test_a_report_of_an_earlier_run_is_not_taken_for_this_one(laid_out, gate, capsys):
    gate(RIGHT, 1)
    assert demo.run(_options(laid_out), ()) == 0
    gate({}, 1)
    assert demo.run(_options(laid_out), ()) == 1
    assert "did not get to its end" in capsys.readouterr().out


@pytest.mark.parametrize("code", [0, 1])
def test_a_project_that_was_changed_exits_as_its_gate_does(laid_out, gate, capsys, code):
    (laid_out / "clipq.toml").write_text(SETTINGS.replace('# "gptq:w4"', '"gptq:w4"'))
    gate(RIGHT, code)
    assert demo.run(_options(laid_out), ()) == code
    assert "as it should be" not in capsys.readouterr().out


def _options(folder: Path):
    from clipq.cli.main import parser

    return parser(["demo"]).parse_args(["demo", str(folder), "-n0"])


def test_the_commands_that_it_names_are_commands(laid_out, gate, capsys):
    from clipq.cli.main import parser

    gate(RIGHT, 1)
    demo.run(_options(laid_out), ())
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    named = [line.split("   ")[0] for line in lines if line.startswith("clipq ")]
    assert len(named) == 4
    for command in named:
        words = [word.strip("'") for word in command.split()]
        parser().parse_args(words[1:])

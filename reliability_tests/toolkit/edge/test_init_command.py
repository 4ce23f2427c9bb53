"""`clipq init` finds what a repository holds, writes what loads, and overwrites nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from warm_process import outside_of_tests

from clipq.cases import Cell
from clipq.cli.main import main
from clipq.cli.onboarding.code import read_code
from clipq.cli.onboarding.proposal import look, propose
from clipq.cli.onboarding.walk import Limits, walk
from clipq.cli.onboarding.writing import MARGINS, quoted, settings_text
from clipq.data import open_declared
from clipq.errors import SettingsError
from clipq.gating.margins import load_margins
from clipq.metrics import metrics
from clipq.settings import ProbeSettings, load_settings

REPOSITORY = Path(__file__).parents[3]
MODEL = REPOSITORY / "fixtures" / "models" / "vit-clean"
DATA = REPOSITORY / "fixtures" / "data"
CREATED = """\
import open_clip
open_clip.create_model_and_transforms("ViT-B-32", pretrained="laion2b_s34b_b79k")
"""


def add_model(root: Path, name: str = "models/mine") -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    for file in MODEL.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def add_data(root: Path, *names: str) -> None:
    for name in names:
        (root / "data").mkdir(exist_ok=True)
        shutil.copytree(DATA / name, root / "data" / name)


def add_images(folder: Path, count: int = 12) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (4, 4), (index, 0, 0)).save(folder / f"{index}.png")


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


# -- the real thing -----------------------------------------------------------------------------


def test_from_a_bare_repository_to_a_gate_in_four_commands(tmp_path, warm_process):
    add_model(tmp_path, "fixtures/models/vit-clean")
    add_data(tmp_path, "shapes", "digits")
    kept = outside_of_tests(os.environ)

    def clipq(*arguments: str) -> subprocess.CompletedProcess[str]:
        return warm_process.run(("clipq", *arguments), cwd=tmp_path, environment=kept, timeout=400)

    begun = clipq("init", "--with-test")
    assert begun.returncode == 0, begun.stderr
    assert "clipq baseline create" in begun.stdout
    listed = clipq("list", "cases")
    assert "vit-clean/rtn:w8a8/id.ece" in listed.stdout, listed.stderr
    assert "vit-clean/rtn:w8a8/digits.auroc-mcm" in listed.stdout
    created = clipq("baseline", "create")
    assert created.returncode == 0, created.stderr
    gate = clipq("gate", "-n0", "--quantizer", "rtn:w8", "--metric", "top1")
    assert gate.returncode == 0, gate.stdout + gate.stderr
    assert "RELIABILITY GATE PASSED: 1 cases" in gate.stdout


def test_the_embedded_world_is_understood():
    probes = {probe.name: probe for probe in propose(look(REPOSITORY / "fixtures")).probes}
    roles = {name: probe.role for name, probe in probes.items()}
    assert roles == {
        "id": "in-distribution",
        "calibration": "calibration",
        "backgrounds": "spurious",
        "captions": "retrieval",
        "digits": "ood",
        "four-groups": "shift",
        "near-ood": "ood",
        "shifted": "shift",
        "textures": "ood",
    }
    assert (probes["id"].source, probes["id"].split) == ("webdataset:data/shapes", "test")
    assert probes["calibration"].split == "calibration"
    assert probes["backgrounds"].group == "group"


# -- what is written ----------------------------------------------------------------------------


def test_what_is_written_loads_and_says_what_was_found(tmp_path, capsys):
    add_model(tmp_path)
    add_data(tmp_path, "shapes")
    assert main(["init", str(tmp_path)]) == 0
    settings = load_settings(tmp_path / "clipq.toml")
    assert [model.source for model in settings.models] == ["local-dir:models/mine"]
    assert settings.in_distribution.source == "webdataset:data/shapes"
    assert load_margins(settings.margins).rules
    shown = capsys.readouterr().out
    assert "clipq probe check" in shown
    assert "MISSING" not in shown


@pytest.mark.parametrize("quantizer", ["rtn:w8", "rtn:w8a8", "rtn:w4g32", "mine"])
def test_the_margins_cover_every_metric(tmp_path, quantizer):
    path = tmp_path / "margins.toml"
    path.write_text(MARGINS)
    margins = load_margins(path)
    for name in metrics.names():
        assert margins.margin(Cell("m", quantizer, "p").case(name)) is not None


def test_margins_of_four_bits_are_no_narrower_than_those_of_eight(tmp_path):
    path = tmp_path / "margins.toml"
    path.write_text(MARGINS)
    margins = load_margins(path)
    for name in metrics.names():
        wide = margins.margin(Cell("m", "rtn:w4", "p").case(name))
        narrow = margins.margin(Cell("m", "rtn:w8", "p").case(name))
        floor = metrics.get(name).unit == "dB"
        assert wide <= narrow if floor else wide >= narrow, name


def test_a_model_without_data_is_written_with_placeholders(tmp_path, capsys):
    (tmp_path / "train.py").write_text(CREATED)
    assert main(["init", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "MISSING" in shown
    assert "a calibration split" in shown
    assert "clipq doctor" in shown
    text = (tmp_path / "clipq.toml").read_text()
    assert tomllib.loads(text)["models"] == [
        {"name": "ViT-B-32", "source": "ViT-B-32/laion2b_s34b_b79k"}
    ]
    with pytest.raises(SettingsError, match=r"\[\[probes\]\]"):
        load_settings(tmp_path / "clipq.toml")
    # Filled in as the comments say, it loads.
    lines = [line[2:] if _is_placeholder(line) else line for line in text.splitlines()]
    (tmp_path / "clipq.toml").write_text("\n".join(lines))
    assert len(load_settings(tmp_path / "clipq.toml").probes) == 2


def _is_placeholder(line: str) -> bool:
    return line.startswith(("# [[", "# name =", "# role =", "# source =", "# split ="))


def test_data_without_a_model_are_written_with_placeholders(tmp_path, capsys):
    add_data(tmp_path, "shapes")
    assert main(["init", str(tmp_path)]) == 0
    assert "a model: no folder with open_clip_config.json" in capsys.readouterr().out
    document = tomllib.loads((tmp_path / "clipq.toml").read_text())
    assert "models" not in document
    assert len(document["probes"]) == 2


def test_where_nothing_is_found_nothing_is_written(tmp_path, capsys):
    (tmp_path / "README.md").write_text("hello")
    assert main(["init", str(tmp_path)]) == 2
    assert "nothing usable was found" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_dry_run_prints_and_writes_nothing(tmp_path, capsys):
    add_model(tmp_path)
    (tmp_path / "clipq.toml").write_text("# mine\n")
    before = snapshot(tmp_path)
    assert main(["init", str(tmp_path), "--dry-run"]) == 0
    assert "local-dir:models/mine" in capsys.readouterr().out
    assert snapshot(tmp_path) == before


def test_an_existing_file_is_kept_and_with_force_backed_up_each_time(tmp_path, capsys):
    add_model(tmp_path)
    path = tmp_path / "clipq.toml"
    path.write_text("# first\n")
    assert main(["init", str(tmp_path)]) == 2
    assert "--force" in capsys.readouterr().err
    assert path.read_text() == "# first\n"
    assert not (tmp_path / "baselines").exists()
    assert main(["init", str(tmp_path), "--force"]) == 0
    assert (tmp_path / "clipq.toml.bak").read_text() == "# first\n"
    path.write_text("# second\n")
    assert main(["init", str(tmp_path), "--force"]) == 0
    assert (tmp_path / "clipq.toml.bak").read_text() == "# first\n"
    assert (tmp_path / "clipq.toml.bak2").read_text() == "# second\n"


def test_reviewed_margins_are_kept(tmp_path):
    add_model(tmp_path)
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "margins.toml").write_text("# reviewed\n")
    assert main(["init", str(tmp_path)]) == 0
    assert (tmp_path / "baselines" / "margins.toml").read_text() == "# reviewed\n"


def test_settings_in_pyproject_are_not_hidden(tmp_path, capsys):
    add_model(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.clipq.matrix]\nquantizers = ['rtn:w8']\n")
    assert main(["init", str(tmp_path)]) == 2
    assert "[tool.clipq]" in capsys.readouterr().err


def test_a_test_module_is_written_only_where_asked_for(tmp_path):
    add_model(tmp_path)
    (tmp_path / "tests").mkdir()
    assert main(["init", str(tmp_path)]) == 0
    assert not list(tmp_path.rglob("test_*.py"))
    assert main(["init", str(tmp_path), "--force", "--with-test"]) == 0
    compile((tmp_path / "tests" / "test_reliability.py").read_text(), "test", "exec")


def test_a_folder_that_is_none_is_named(tmp_path, capsys):
    assert main(["init", str(tmp_path / "absent")]) == 2
    assert "no folder" in capsys.readouterr().err


# -- names --------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_survives_toml(text):
    assert tomllib.loads(f"key = {quoted(text)}") == {"key": text}


@pytest.mark.parametrize(
    "name",
    [
        'a "quoted" one',
        "back\\slash",
        "new\nline",
        "# no comment",
        "ünïcode 模型",
        "tab\tand\x7f",
        "'''",
    ],
)
def test_weird_names_load_as_they_are(tmp_path, name):
    add_model(tmp_path, name)
    add_data(tmp_path, "shapes")
    (tmp_path / "data").rename(tmp_path / f"{name} data")
    assert main(["init", str(tmp_path)]) == 0
    settings = load_settings(tmp_path / "clipq.toml")
    assert settings.models[0].source == f"local-dir:{name}"
    assert settings.in_distribution.source == f"webdataset:{name} data/shapes"


def test_a_name_that_is_not_utf8_is_said_and_left_out(tmp_path):
    add_model(tmp_path, os.fsdecode(b"caf\xe9"))
    add_model(tmp_path, "good")
    found = propose(look(tmp_path))
    assert [model.source for model in found.models] == ["local-dir:good"]
    assert any("is not UTF-8" in note for note in found.notes)
    tomllib.loads(settings_text(found))


def test_models_of_one_name_are_told_apart(tmp_path):
    add_model(tmp_path, "a/clip")
    add_model(tmp_path, "b/clip")
    assert [model.name for model in propose(look(tmp_path)).models] == ["clip", "clip-2"]


# -- the walk -----------------------------------------------------------------------------------


def test_a_circle_of_links_is_walked_once(tmp_path):
    add_model(tmp_path, "models/mine")
    (tmp_path / "models" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "models" / "self").symlink_to("self")
    assert [model.source for model in propose(look(tmp_path)).models] == ["local-dir:models/mine"]


def test_environments_and_version_control_are_not_searched(tmp_path):
    for folder in (".git/m", "node_modules/m", ".venv/m", "env-of-mine/m"):
        add_model(tmp_path, folder)
    (tmp_path / "env-of-mine" / "pyvenv.cfg").write_text("")
    assert not propose(look(tmp_path)).models


def test_a_search_that_stopped_says_where(tmp_path):
    for index in range(30):
        (tmp_path / f"folder-{index:02d}" / "deeper").mkdir(parents=True)
    add_model(tmp_path, "a-model")
    found = propose(look(tmp_path, Limits(entries=35)))
    assert any("the search stopped after 35 names" in note for note in found.notes)
    assert len(walk(tmp_path, Limits(entries=35)).folders) < 32
    shallow = walk(tmp_path, Limits(depth=1))
    assert "30 go deeper" in shallow.stopped


def test_of_a_large_folder_of_images_a_part_is_read(tmp_path):
    add_images(tmp_path / "train" / "cat", 60)
    folder = walk(tmp_path, Limits(images=40))[PurePosixPath("train/cat")]
    assert (folder.images, folder.more) == (40, True)


def test_an_unreadable_folder_is_noted_and_the_rest_found(tmp_path, monkeypatch):
    add_model(tmp_path, "good")
    (tmp_path / "secret").mkdir()
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = propose(look(tmp_path))
    assert [model.source for model in found.models] == ["local-dir:good"]
    assert any("secret: Permission denied" in note for note in found.notes)


# -- models and data ----------------------------------------------------------------------------


def test_a_model_folder_without_weights_is_explained(tmp_path):
    folder = add_model(tmp_path)
    (folder / "open_clip_model.safetensors").unlink()
    found = propose(look(tmp_path))
    assert not found.models
    assert any("no checkpoint" in note for note in found.notes)


def test_code_is_read_and_never_run(tmp_path):
    (tmp_path / "names.py").write_text(
        "import open_clip, pathlib\n"
        "pathlib.Path(__file__).with_name('ran').touch()\n"
        "ARCH = 'ViT-L/14'\n"
        "a = open_clip.create_model_and_transforms(ARCH, pretrained='openai')\n"
        "b = open_clip.create_model('hf-hub:org/name')\n"
        "c = open_clip.create_model('RN50', 'weights/mine.pt')\n"
        "d = open_clip.create_model('RN50')\n"
    )
    (tmp_path / "test_names.py").write_text("open_clip.create_model('RN101', 'openai')\n")
    (tmp_path / "broken.py").write_text("def (:\n")
    found = read_code(walk(tmp_path))
    assert set(found.models) == {"ViT-L-14/openai", "hf-hub:org/name"}
    assert found.models["ViT-L-14/openai"] == "names.py:4"
    assert len(found.notes) == 2
    assert not (tmp_path / "ran").exists()


def test_a_registered_quantizer_becomes_a_plugin_and_part_of_the_matrix(tmp_path, capsys):
    add_model(tmp_path)
    add_data(tmp_path, "shapes")
    (tmp_path / "init_halved.py").write_text(
        "import clipq\n\n\n@clipq.quantizers.register('init-halved')\n"
        "def halved(model, spec, calibration):\n    return model\n"
    )
    assert main(["init", str(tmp_path)]) == 0
    settings = load_settings(tmp_path / "clipq.toml")
    assert settings.plugins == ("init_halved",)
    assert "init-halved" in settings.quantizers
    capsys.readouterr()
    done = subprocess.run(
        [sys.executable, "-m", "clipq", "list", "cases"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "mine/init-halved/id.top1" in done.stdout, done.stderr


def test_class_folders_with_splits_are_calibrated_on_train(tmp_path):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            add_images(tmp_path / "pets" / split / name)
    probes = {probe.role: probe for probe in propose(look(tmp_path)).probes}
    assert probes["in-distribution"].source == "folder:pets"
    assert probes["in-distribution"].split == "val"
    assert probes["calibration"].split == "train"


def test_class_folders_of_other_classes_are_out_of_distribution(tmp_path):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            add_images(tmp_path / "pets" / split / name)
    for name in ("lorry", "ship"):
        add_images(tmp_path / "vehicles" / name)
    for name in ("cat", "ship"):
        add_images(tmp_path / "mixed" / name)
    probes = {probe.name: probe for probe in propose(look(tmp_path)).probes}
    assert (probes["vehicles"].role, probes["vehicles"].split) == ("ood", ".")
    assert not probes["mixed"].decided
    assert '# [[probes]]\n# name = "mixed"' in settings_text(propose(look(tmp_path)))


def test_a_few_figures_are_no_data_set(tmp_path):
    for name in ("figures", "logos"):
        add_images(tmp_path / "docs" / name, 3)
    assert not propose(look(tmp_path)).probes


def test_lists_of_images_in_one_folder_are_splits_of_one_data_set(tmp_path):
    add_images(tmp_path / "bench" / "images", 4)
    (tmp_path / "bench" / "lists").mkdir()
    for split in ("train_mine", "test_mine"):
        (tmp_path / "bench" / "lists" / f"{split}.txt").write_text("images/0.png 0\n")
    (tmp_path / "bench" / "lists" / "notes.txt").write_text("see page 7\n")
    (tmp_path / "bench" / "classnames.txt").write_text("a\nb\n")
    probes = {probe.role: probe for probe in propose(look(tmp_path)).probes}
    assert probes["in-distribution"].source == "imagelist:bench"
    assert probes["in-distribution"].split == "lists/test_mine.txt"
    assert probes["calibration"].split == "lists/train_mine.txt"


def test_shards_that_lack_a_file_are_explained(tmp_path):
    add_data(tmp_path, "digits", "shapes")
    (tmp_path / "data" / "digits" / "test" / "nshards.txt").unlink()
    (tmp_path / "data" / "shapes" / "classnames.txt").unlink()
    notes = propose(look(tmp_path)).notes
    assert any("no nshards.txt" in note for note in notes)
    assert any("no classnames.txt" in note for note in notes)


# -- what is passed over, and why ----------------------------------------------------------------


def test_every_folder_that_is_passed_over_has_one_line_with_the_reason(tmp_path, capsys):
    add_model(tmp_path)
    add_data(tmp_path, "shapes")
    add_images(tmp_path / "loose")
    add_images(tmp_path / "lonely" / "cat", 30)
    for name in ("cat", "dog"):
        add_images(tmp_path / "tiny" / name, 5)
        add_images(tmp_path / "mixed" / name)
    (tmp_path / "mixed" / "annotations").mkdir()
    for name in ("train", "test"):
        add_images(tmp_path / "splits" / name)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "test-0.parquet").write_bytes(b"PAR1")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "images.zip").write_bytes(b"PK")
    assert main(["init", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for line in (
        "loose is passed over: 12 pictures lie directly in it",
        "lonely is passed over: only one folder in it, cat, holds pictures",
        "tiny is passed over: 10 pictures in class folders: a data set has 20 or more",
        "mixed is passed over: 2 folders in it hold pictures and 1 do not (annotations)",
        "splits is passed over: test, train: splits whose pictures lie in no class folders",
        "tables is passed over: Parquet files, which init does not read: if they hold images, "
        'source = "huggingface:tables"',
        "packed is passed over: images.zip: unpack what holds images",
    ):
        assert shown.count(line) == 1
    assert shown.count(" is passed over: ") == 7  # not each class folder once more


def test_nothing_is_passed_over_where_all_is_used(tmp_path):
    add_data(tmp_path, "shapes", "digits")
    for name in ("cat", "dog"):
        add_images(tmp_path / "photos" / "test" / name)
    assert not [note for note in propose(look(tmp_path)).notes if "passed over" in note]


def test_the_offer_of_a_group_says_what_files_are_relative_to(tmp_path):
    for name in ("cat", "dog"):
        add_images(tmp_path / "photos" / "test" / name)
    rows = [f"{name}/{at}.png,{at % 2}\n" for name in ("cat", "dog") for at in range(12)]
    (tmp_path / "photos" / "attributes.csv").write_text("file,night\n" + "".join(rows))
    text = settings_text(propose(look(tmp_path)))
    assert '# group = "night"' in text
    assert "`file`: relative to the split's folder, as cat/1.png" in text
    probe = ProbeSettings("id", "in-distribution", "folder:photos", group="night")
    assert set(open_declared(probe, base_dir=tmp_path).groups) == {"0", "1"}

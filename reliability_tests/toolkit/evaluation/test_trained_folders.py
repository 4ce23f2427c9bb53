"""A trained quantizer is a folder: read back as it was written, or refused with one clear error."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clipq.cases import Candidate
from clipq.errors import QuantizerError
from clipq.evaluation.trained_folder import STATE, TrainedFolder, folders_below, write_trained
from clipq.evaluation.trained_manifest import TRAINED, LossAt, TrainedManifest
from clipq.evaluation.trained_plan import training_notes
from clipq.evaluation.trained_search import cache_folder, fitting_folder, refuse_untrained
from clipq.evaluation.training_beat import TrainingBeat, beats, waiting_for
from clipq.evaluation.training_run import first_pairs, refuse_other
from clipq.evaluation.training_unit import TrainingUnit
from clipq.settings import ModelSettings, ProbeSettings, Settings
from clipq.training_settings import TrainingSettings

PARENT = {"weights_sha256": "0f" * 32, "config_sha256": "1e" * 32}
UNIT = TrainingUnit(
    "vit",
    "lsq:w4a8,steps=9",
    {"steps": 9, "lr": 1e-4, "objective": "distil"},
    PARENT,
    {"proxy": "2d" * 32, "calibration": "3c" * 32},
    {"code_sha256": "4b" * 32, "method_version": 1},
    {"threads": 1, "torch": "2.9"},
)
MANIFEST = TrainedManifest(
    UNIT,
    "0" * 64,
    proxy="proxy",
    pairs=90,
    held_out=10,
    steps=9,
    best_step=5,
    losses=(LossAt(0, {"total": 0.8}), LossAt(5, {"total": 0.4}, {"total": 0.6})),
    seconds=1.5,
)
LEARNT = {"visual.conv1.rounding.step": torch.full((3, 1), 0.25), "a": torch.arange(4.0)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_trained(tmp_path / "lsq", MANIFEST, LEARNT)
    return tmp_path / "lsq"


def test_what_is_written_is_read_back(folder):
    found = TrainedFolder.read(folder)
    assert replace(found.manifest, state_sha256="0" * 64) == MANIFEST
    state = found.state()
    assert set(state) == set(LEARNT)
    assert all(torch.equal(state[name], LEARNT[name]) for name in LEARNT)
    assert {path.name for path in folder.iterdir()} == {STATE, TRAINED}


def test_a_state_hashes_alike_wherever_it_lies_and_in_whatever_order_it_comes(folder, tmp_path):
    backwards = dict(reversed(LEARNT.items()))
    other = write_trained(tmp_path / "elsewhere", replace(MANIFEST, seconds=9.0), backwards)
    assert other.manifest.state_sha256 == TrainedFolder.read(folder).manifest.state_sha256
    moved = write_trained(tmp_path / "moved", MANIFEST, LEARNT | {"a": torch.arange(4.0) + 1e-6})
    assert moved.manifest.state_sha256 != other.manifest.state_sha256


def damage_nothing_there(folder):
    (folder / STATE).unlink()


def damage_truncated(folder):
    (folder / STATE).write_bytes((folder / STATE).read_bytes()[:-3])


def damage_flipped(folder):
    content = bytearray((folder / STATE).read_bytes())
    content[-1] ^= 1
    (folder / STATE).write_bytes(content)


def damage_no_json(folder):
    (folder / TRAINED).write_text('{"schema": "clipq-trained/1", "trained": {')


def damage_schema(folder):
    said = json.loads((folder / TRAINED).read_text())
    (folder / TRAINED).write_text(json.dumps(said | {"schema": "clipq-trained/9"}))


def damage_hash(folder):
    said = json.loads((folder / TRAINED).read_text())
    said["trained"]["state_sha256"] = "no hash"
    (folder / TRAINED).write_text(json.dumps(said))


def damage_steps(folder):
    said = json.loads((folder / TRAINED).read_text())
    said["trained"]["steps"] = -1
    (folder / TRAINED).write_text(json.dumps(said))


DAMAGES = {
    damage_nothing_there: "No such file",
    damage_truncated: "is not the state that was trained",
    damage_flipped: "is not the state that was trained",
    damage_no_json: "cannot be read as JSON",
    damage_schema: "schema",
    damage_hash: "state_sha256",
    damage_steps: "steps",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_folder_is_one_error_that_names_it(folder, damage):
    damage(folder)
    with pytest.raises(QuantizerError, match=DAMAGES[damage]) as caught:
        TrainedFolder.read(folder)
    assert str(folder) in caught.value.problem
    assert "clipq train" in caught.value.hint


def test_a_state_of_nan_or_of_another_format_is_refused_though_its_hash_is_right(tmp_path):
    write_trained(tmp_path / "nan", MANIFEST, LEARNT | {"a": torch.tensor([1.0, float("nan")])})
    with pytest.raises(QuantizerError, match="a holds NaN or infinity"):
        TrainedFolder.read(tmp_path / "nan").state()
    from safetensors.torch import save

    foreign = save(LEARNT, {"format": "pt"})
    for content, said in ((foreign, "format 'pt'"), (b"x" * 64, "no trained")):
        found = write_trained(tmp_path / "foreign", MANIFEST, LEARNT)
        (found.path / STATE).write_bytes(content)
        replace(MANIFEST, state_sha256=hashlib.sha256(content).hexdigest()).write(found.path)
        with pytest.raises(QuantizerError, match=said):
            TrainedFolder.read(found.path).state()


def test_no_folder_and_a_file_are_told(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("none", "file"):
        with pytest.raises(QuantizerError, match="it is no folder"):
            TrainedFolder.read(tmp_path / name)


def test_a_state_of_another_model_or_quantizer_is_refused_with_what_differs(folder):
    found = TrainedFolder.read(folder)
    found.require("lsq:w4a8,steps=9", PARENT, "vit")
    other = PARENT | {"weights_sha256": "ee" * 32}
    with pytest.raises(QuantizerError, match="another model: weights were 0f0f0f0f0f0f, are eeee"):
        found.require("lsq:w4a8,steps=9", other, "vit")
    with pytest.raises(QuantizerError, match="it is 'lsq:w4a8,steps=9', not 'lsq:w4a8,steps=8'"):
        found.require("lsq:w4a8,steps=8", PARENT, "vit")


def test_a_folder_is_found_by_parent_and_quantizer_whatever_it_is_called(folder, tmp_path):
    assert fitting_folder(tmp_path, "renamed", "lsq:w4a8,steps=9", PARENT) == folder
    assert fitting_folder(folder, "vit", "lsq:w4a8,steps=9", PARENT) == folder
    assert fitting_folder(tmp_path, "vit", "lsq:w4a8,steps=8", PARENT) is None
    assert fitting_folder(tmp_path / "none", "vit", "lsq:w4a8,steps=9", PARENT) is None


def test_a_folder_of_this_name_and_another_model_is_no_reason_to_train_in_silence(folder, tmp_path):
    other = PARENT | {"config_sha256": "ee" * 32}
    with pytest.raises(QuantizerError, match="from another 'vit': configuration was 1e1e1e1e1e1e"):
        fitting_folder(tmp_path, "vit", "lsq:w4a8,steps=9", other)
    assert fitting_folder(tmp_path, "of-another-name", "lsq:w4a8,steps=9", other) is None


def test_a_damaged_manifest_is_an_error_of_those_alone_that_have_no_other(folder, tmp_path):
    bad = tmp_path / "bad"
    write_trained(bad, MANIFEST, LEARNT | {"a": torch.zeros(4)})
    (bad / TRAINED).write_text('{"schema": ')
    assert fitting_folder(tmp_path, "vit", UNIT.quantizer, PARENT) == folder
    with pytest.raises(QuantizerError, match=r"bad/trained.json cannot be read as JSON") as error:
        fitting_folder(tmp_path, "vit", "lsq:w4a8,steps=8", PARENT)
    assert "train it again" in error.value.hint
    assert "whether it is the state of vit/lsq:w4a8,steps=8" in error.value.hint


def test_two_states_that_fit_are_refused_and_two_copies_of_one_are_not(folder, tmp_path):
    write_trained(tmp_path / "copy", MANIFEST, LEARNT)
    assert fitting_folder(tmp_path, "vit", UNIT.quantizer, PARENT) is not None
    write_trained(tmp_path / "other", MANIFEST, LEARNT | {"a": torch.zeros(4)})
    with pytest.raises(QuantizerError, match=r"two trained states: .*copy and .*other"):
        fitting_folder(tmp_path, "vit", UNIT.quantizer, PARENT)


def test_hidden_folders_and_what_lies_too_deep_are_not_searched(folder, tmp_path):
    for place in (".hidden", "a/b/c/d"):
        write_trained(tmp_path / place, MANIFEST, LEARNT)
    assert folders_below(tmp_path) == [folder]


# -- units -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"quantizer": "lsq:w4a8,steps=8"},
        {"recipe": {**UNIT.recipe, "lr": 2e-4}},
        {"parent": PARENT | {"weights_sha256": "ee" * 32}},
        {"data": UNIT.data | {"proxy": "ee" * 32}},
        {"code": {**UNIT.code, "code_sha256": "ee" * 32}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_change_of_what_decides_the_result_is_another_training_and_is_named(change, tmp_path):
    other = replace(UNIT, **change)
    assert other.digest != UNIT.digest
    assert len(list(other.differences(UNIT))) == 1
    for write in (UNIT.write, lambda place: write_trained(place, MANIFEST, LEARNT)):
        place = tmp_path / write.__name__.strip("<>")
        write(place)
        refuse_other(UNIT, place)
        with pytest.raises(QuantizerError, match="holds another training: ") as caught:
            refuse_other(other, place)
        assert next(other.differences(UNIT)) in caught.value.problem


def test_a_name_is_not_part_of_a_training_and_the_machine_is_no_reason_to_refuse(tmp_path):
    assert replace(UNIT, model="another").digest == UNIT.digest
    elsewhere = replace(UNIT, machine={"threads": 8})
    assert elsewhere.digest != UNIT.digest  # the cache keeps both
    assert not list(elsewhere.differences(UNIT))
    UNIT.write(tmp_path)
    assert TrainingUnit.read(tmp_path) == UNIT


def test_folders_of_two_trainings_have_two_names():
    globs = [f"lsq:w4a8,include=visual{letter}mlp" for letter in "*?/-"]
    names = {replace(UNIT, quantizer=text).name for text in (UNIT.quantizer, *globs)}
    assert len(names) == 5
    assert all(name == Path(name).name and " " not in name for name in names)


def test_a_folder_that_holds_anything_else_is_refused(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(QuantizerError, match="holds what is no training"):
        refuse_other(UNIT, tmp_path)
    with pytest.raises(QuantizerError, match="is a file"):
        refuse_other(UNIT, tmp_path / "photo.png")
    (tmp_path / "empty").mkdir()
    refuse_other(UNIT, tmp_path / "empty")
    refuse_other(UNIT, tmp_path / "none")


@pytest.mark.parametrize("text", ["rtn:w8", "fp32", "gptq:w4@vision"])
def test_what_learns_nothing_cannot_be_trained(text):
    with pytest.raises(QuantizerError, match="is not trained"):
        refuse_untrained(text)


def test_pairs_are_chosen_by_their_images_whatever_their_order():
    hashes = [f"{value:02x}" for value in (7, 3, 9, 1, 5)]
    chosen = {hashes[row] for row in first_pairs(hashes, 3)}
    assert chosen == {"01", "03", "05"}
    assert {hashes[::-1][row] for row in first_pairs(hashes[::-1], 3)} == chosen


# -- plans and progress ----------------------------------------------------------------------------


def test_a_plan_says_what_is_trained_first_and_loads_no_torch(tmp_path):
    settings = Settings(
        tmp_path / "clipq.toml",
        (ModelSettings("vit", "ViT-B-32/openai", sha256="0f" * 32),),
        (ProbeSettings("id", "in-distribution", "folder:photos"),),
        ("rtn:w8", "lsq:w4a8,steps=9", "lsq:w4a8,steps=0"),
        cache=tmp_path / "cache",
        trained=tmp_path / "trained",
    )
    candidates = [Candidate("vit", text) for text in ("fp32", *settings.quantizers)]
    (note,) = training_notes(settings, candidates)
    assert note.startswith("vit/lsq:w4a8,steps=9 is trained at first use (9 steps)")
    write_trained(cache_folder(settings.cache, UNIT), MANIFEST, LEARNT)
    assert "took 2 s" in training_notes(settings, candidates)[0]
    write_trained(tmp_path / "trained" / "vit", MANIFEST, LEARNT)
    assert training_notes(settings, candidates) == ()
    code = (
        "import sys, clipq.evaluation.trained_plan, clipq.evaluation.training_beat, "
        "clipq.report.trained_line; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_whoever_waits_for_a_training_is_told_how_far_it_is(tmp_path, monkeypatch):
    from threading import Timer

    from filelock import FileLock

    monkeypatch.setattr("clipq.evaluation.training_beat._EVERY_SECONDS", 0.05)
    told: list[tuple[str, int, int]] = []
    theirs, ours = (FileLock(tmp_path / "lsq.lock", thread_local=False) for _ in range(2))
    theirs.acquire()
    with TrainingBeat(tmp_path / "lsq", "vit/lsq:w4a8") as beat:
        beat(3, 9, 0.5)
        assert [str(each) for each in beats(tmp_path)] == [
            "training vit/lsq:w4a8: step 3 of 9, loss 0.5"
        ]
        release = Timer(0.3, theirs.release)
        release.start()
        with waiting_for(ours, tmp_path / "lsq", lambda *how: told.append(how)):
            release.join()
    assert told == [("training vit/lsq:w4a8 elsewhere", 3, 9)]  # once: nothing moved since
    assert beats(tmp_path) == []


def test_a_beat_that_cannot_be_written_stops_no_training(tmp_path, monkeypatch):
    (tmp_path / "full").write_text("")  # a file where a folder would have to be
    with TrainingBeat(tmp_path / "full" / "lsq", "vit/lsq:w4a8") as beat:
        beat(1, 9, 0.5)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with TrainingBeat(Path(), "vit/lsq:w4a8") as beat:  # `--output .`
        beat(1, 9, 0.5)
        assert [each.done for each in beats(tmp_path)] == [1]


def test_a_folder_that_a_training_was_refused_in_is_free(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "lock").write_text("")
    refuse_other(UNIT, tmp_path)
    (tmp_path / "checkpoints" / "step-00000001.json").write_text("{}")
    with pytest.raises(QuantizerError, match="holds what is no training"):
        refuse_other(UNIT, tmp_path)


@pytest.mark.parametrize("text", ["2e0", "2.0", "02", "1_0", "+3", "٣"])
def test_a_whole_number_has_one_spelling(text):
    with pytest.raises(QuantizerError, match=r"fix: write seed=\d+$"):
        TrainingSettings.read({"seed": text})


def test_neighbouring_seeds_are_two_however_large():
    seeds = [
        TrainingSettings.read({"seed": text}).seed
        for text in ("9223372036854775806", f"{2**63 - 1}")
    ]
    assert seeds == [2**63 - 2, 2**63 - 1]
    with pytest.raises(QuantizerError, match="no number from"):
        TrainingSettings.read({"seed": str(2**63)})

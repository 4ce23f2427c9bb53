"""A plan's units: every combination once, in one order, with the seeds that count; its errors."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from clipq.artifact_settings import ArtifactSettings
from clipq.cli import main
from clipq.errors import SweepError
from clipq.settings import ModelSettings, ProbeSettings, Settings
from clipq.sweep.executor import Outcome
from clipq.sweep.sweep_plan import read_plan
from clipq.sweep.units import CalibrationDraw, Unit

HEAD = 'schema = "clipq-sweep/1"\nsettings = "clipq.toml"\n'
RTN = 'methods = ["rtn"]\nformats = ["w8", "w4"]\n'
FILES = {"image": "image.onnx", "text": "text.onnx"}
SETTINGS = Settings(
    Path("clipq.toml"),
    tuple(ModelSettings(name, f"local-dir:{name}") for name in ("vit-b", "vit-a", "resnet")),
    (
        ProbeSettings("id", "in-distribution", "folder:photos", metrics=("top1", "ece", "nll")),
        ProbeSettings("near", "ood", "folder:others", metrics=("auroc-mcm",)),
        ProbeSettings("last", "ood", "folder:kept", use="release"),
        ProbeSettings("calibration", "calibration", "folder:photos", "train", samples=512),
    ),
    (),
    artifacts=(ArtifactSettings("ort-int8", "vit-a", "onnxruntime", format="w8a8", **FILES),),
)


def planned(tmp_path, text, head=HEAD):
    path = tmp_path / "plan.toml"
    path.write_text(f"{head}{text}", encoding="utf-8")
    return read_plan(path)


def units(tmp_path, text, head=HEAD):
    plan = planned(tmp_path, text, head)
    found = [str(unit) for unit in plan.units(SETTINGS, lambda model, method: f"{model}+{method}")]
    assert len(found) == len(set(found)) == plan.survey(SETTINGS).units
    return found


def block(text, models='["vit-a"]'):
    return f"[[sweep]]\nmodels = {models}\n{text}\n"


def test_a_product_is_every_combination_model_by_model_in_the_settings_order(tmp_path):
    text = block(
        'methods = ["rtn", "awq"]\nformats = ["w8", "w4g32"]\ntowers = ["vision", "both"]\n'
        'options = { wrange = ["minmax", "mse"] }',
        '["*"]',
    )
    expected = [
        f"{model}/{method}:{form},wrange={wrange}{towers}"
        for model in ("vit-b", "vit-a", "resnet")
        for method in ("rtn", "awq")
        for form in ("w8", "w4g32")
        for towers in ("@vision", "")
        for wrange in ("minmax", "mse")
    ]
    assert units(tmp_path, text) == expected


def test_blocks_are_joined_model_by_model_and_a_context_is_asked_once_per_pair(tmp_path):
    text = block('methods = ["rtn"]\nformats = ["w8", "w4"]', '["vit-*"]') + block(
        'methods = ["gptq"]\nformats = ["w4"]', '["vit-*"]'
    )
    asked = []

    def context(model, method):
        asked.append((model, method))
        return f"{model}+{method}"

    found = list(planned(tmp_path, text).units(SETTINGS, context))
    assert [unit.model for unit in found] == ["vit-b"] * 3 + ["vit-a"] * 3
    assert {unit.context for unit in found if unit.quantizer == "gptq:w4"} == {
        "vit-b+gptq", "vit-a+gptq"
    }  # fmt: skip
    assert asked == list(dict.fromkeys(asked))
    assert [unit.id for unit in planned(tmp_path, text).units(SETTINGS, context)] == [
        unit.id for unit in found
    ]


SEEDS = {
    'methods = ["rtn"]\nformats = ["w8"]': ["rtn:w8"],
    'methods = ["rtn"]\nformats = ["w8a8"]': ["rtn:w8a8"],
    'methods = ["quarot"]\nformats = ["w8"]': ["quarot:w8,seed=4", "quarot:w8,seed=9"],
    'methods = ["gptq"]\nformats = ["w4"]\noptions = { rotation = ["none", "hadamard"] }': [
        "gptq:w4,rotation=none",
        "gptq:w4,rotation=hadamard,seed=4",
        "gptq:w4,rotation=hadamard,seed=9",
    ],
    'methods = ["rtn"]\nformats = ["w8", "w8a8"]\ncalibration = [0, 64, 256]': [
        "rtn:w8",
        "rtn:w8a8",
        *(
            f"rtn:w8a8 (calibration: {samples} samples, seed {seed})"
            for samples in (64, 256)
            for seed in (4, 9)
        ),
    ],
    'methods = ["quarot"]\nformats = ["w8", "w8a8"]\ncalibration = [64]': [
        "quarot:w8,seed=4",
        "quarot:w8,seed=9",
        "quarot:w8a8,seed=4 (calibration: 64 samples, seed 4)",
        "quarot:w8a8,seed=9 (calibration: 64 samples, seed 9)",
    ],
    'quantizers = ["lsq:w4a8,objective=distil", "ort-int8", "fp32+logit-scale"]': [
        "lsq:w4a8,objective=distil,seed=4",
        "lsq:w4a8,objective=distil,seed=9",
        "ort-int8",
        "fp32+logit-scale",
    ],
    'quantizers = ["quarot:w8,seed=2"]': ["quarot:w8,seed=2"],
    'methods = ["raana"]\noptions = { bits = [3, 3.3] }\ntowers = ["text"]': [
        f"raana,bits={bits},seed={seed}@text" for bits in (3, 3.3) for seed in (4, 9)
    ],
}


@pytest.mark.parametrize("text", SEEDS)
def test_a_seed_counts_only_where_something_random_changes(tmp_path, text):
    found = units(tmp_path, block(f"{text}\nseeds = [4, 9]"))
    assert [unit.removeprefix("vit-a/") for unit in found] == SEEDS[text]


def test_what_a_plan_says_nothing_of_stays_as_it_is(tmp_path):
    literal = 'quantizers = ["quarot:w8", "lsq:w4a8"]'
    assert units(tmp_path, block(literal)) == ["vit-a/quarot:w8", "vit-a/lsq:w4a8"]
    made = 'methods = ["quarot"]\nformats = ["w8"]'
    assert units(tmp_path, block(made)) == ["vit-a/quarot:w8,seed=0"]


def test_a_tuned_logit_scale_is_an_axis_that_comes_right_after_its_own(tmp_path):
    text = block(
        'methods = ["rtn", "lsq"]\nformats = ["w4a8"]\n'
        'logit_scale = ["own", "tuned"]\nseeds = [3]\n'
        '[[sweep.when]]\nmatch = { methods = ["lsq"] }\noptions = { steps = [5, 9] }\n'
        '[[sweep.skip]]\nmatch = { logit_scale = ["tuned"], options = { steps = [5] } }'
    )
    assert units(tmp_path, text) == [
        "vit-a/rtn:w4a8",
        "vit-a/rtn:w4a8+logit-scale",
        "vit-a/lsq:w4a8,seed=3,steps=5",
        "vit-a/lsq:w4a8,seed=3,steps=9",
        "vit-a/lsq:w4a8,seed=3,steps=9+logit-scale",
    ]
    whole = 'quantizers = ["raana,bits=3.3@vision"]\nlogit_scale = ["tuned"]\nseeds = 2'
    assert units(tmp_path, block(whole)) == [
        f"vit-a/raana,bits=3.3,seed={seed}@vision+logit-scale" for seed in (0, 1)
    ]


def test_an_artifact_is_one_of_its_own_model_alone(tmp_path):
    text = block('quantizers = ["ort-int8", "rtn:w8@vision"]', '["*"]')
    assert units(tmp_path, text) == [
        "vit-b/rtn:w8@vision",
        "vit-a/ort-int8",
        "vit-a/rtn:w8@vision",
        "resnet/rtn:w8@vision",
    ]


def test_zipped_axes_go_together(tmp_path):
    text = block(
        'methods = ["smoothquant", "rtn"]\nformats = ["w8a8", "w4a4"]\n'
        'options = { alpha = [0.3, 0.5], ends = ["float"] }\n'
        'zip = [["formats", "options.alpha"]]\n[[sweep.skip]]\nmatch = { methods = ["rtn"] }'
    )
    assert units(tmp_path, text) == [
        "vit-a/smoothquant:w8a8,alpha=0.3,ends=float",
        "vit-a/smoothquant:w4a4,alpha=0.5,ends=float",
    ]


def test_a_conditional_axis_is_of_those_that_match_and_filters_see_it(tmp_path):
    text = block(
        'methods = ["smoothquant", "rtn"]\nformats = ["w8a8", "w4a8"]\n'
        '[[sweep.when]]\nmatch = { methods = ["smoothquant"] }\n'
        "options = { alpha = [0.3, 0.5, 0.7] }\n"
        '[[sweep.skip]]\nmatch = { formats = ["w4*"], options = { alpha = [0.7] } }\n'
        '[[sweep.skip]]\nmatch = { methods = ["rtn"], formats = ["w8a8"] }'
    )
    assert units(tmp_path, text) == [
        *(f"vit-a/smoothquant:w8a8,alpha={alpha}" for alpha in (0.3, 0.5, 0.7)),
        *(f"vit-a/smoothquant:w4a8,alpha={alpha}" for alpha in (0.3, 0.5)),
        "vit-a/rtn:w4a8",
    ]


def test_only_keeps_what_one_of_its_matches_takes(tmp_path):
    text = block(
        'methods = ["rtn", "awq", "gptq"]\nformats = ["w8", "w4"]\n'
        '[[sweep.only]]\nmatch = { methods = ["rtn"] }\n'
        '[[sweep.only]]\nmatch = { methods = ["a*"], formats = ["w4"] }',
        '["vit-*"]',
    )
    kept = ["rtn:w8", "rtn:w4", "awq:w4"]
    assert units(tmp_path, text) == [f"{m}/{q}" for m in ("vit-b", "vit-a") for q in kept]


def test_cells_are_counted_per_probe_and_what_is_kept_for_releases_is_not_measured(tmp_path):
    text = block('methods = ["rtn", "quarot"]\nformats = ["w8"]\nseeds = 3', '["vit-*"]')
    survey = planned(tmp_path, text).survey(SETTINGS)
    assert (survey.units, survey.cells) == (8, 8 * 4)
    assert survey.by_model == {"vit-b": 4, "vit-a": 4}
    assert list(survey.seeds.values()) == [2, 6]
    narrow = planned(tmp_path, text, f'{HEAD}probes = ["i*"]\nmetrics = ["top1", "*ll"]\n')
    assert narrow.survey(SETTINGS).cells == 8 * 2


def test_what_the_settings_exclude_is_not_counted_and_a_unit_without_cells_is_left_out(tmp_path):
    narrowed = replace(SETTINGS, exclude=("vit-b/rtn:w4/*", "*/id.nll"))
    plan = planned(tmp_path, block(RTN, '["vit-*"]'))
    survey = plan.survey(narrowed)
    assert (survey.units, survey.cells, survey.excluded) == (3, 3 * 3, 1)
    found = [str(unit) for unit in plan.units(narrowed, lambda model, method: "")]
    assert found == ["vit-b/rtn:w8", "vit-a/rtn:w8", "vit-a/rtn:w4"]
    with pytest.raises(SweepError, match="excludes every cell"):
        plan.survey(replace(SETTINGS, exclude=("*",)))


def test_a_digest_is_of_what_is_said_not_of_how_it_is_laid_out(tmp_path):
    text = block('methods = ["rtn"]\nformats = ["w8"]')
    one = planned(tmp_path, text).digest
    assert planned(tmp_path, f"# a remark\n{text.replace(' = ', '=')}").digest == one
    assert planned(tmp_path, text.replace("w8", "w4")).digest != one


WRONG = {
    "unknown key 'methodes'.*did you mean 'methods'": block('methodes = ["rtn"]'),
    r"\[sweep.*unknown key 'mach'": block(f'{RTN}[[sweep.skip]]\nmach = {{ methods = ["x"] }}'),
    "unknown key 'methods_'": block(f'{RTN}[[sweep.skip]]\nmatch = {{ methods_ = ["x"] }}'),
    "unknown model 'vit-c'.*did you mean 'vit-": block(RTN, '["vit-c"]'),
    "no model is named": block(RTN, "[]"),
    "model 'vit-a' is given twice": block(RTN, '["vit-a", "vit-a"]'),
    "unknown quantizer method 'rtm'.*did you mean 'rtn'": block('methods = ["rtm"]'),
    "number format 'x8' cannot be read": block('methods = ["rtn"]\nformats = ["x8"]'),
    "unknown quantizer method or artifact 'ort-int4'.*did you mean 'ort-int8'": block(
        'quantizers = ["ort-int4"]'
    ),
    "artifact 'ort-int8' is one of vit-a": block('quantizers = ["ort-int8"]', '["resnet"]'),
    "is the reference itself": block('quantizers = ["fp32"]'),
    "towers is an axis, and quantizer 'rtn:w8@text' has its own": block(
        'quantizers = ["rtn:w8@text"]\ntowers = ["vision"]'
    ),
    "towers is an axis, and quantizer 'ort-int8'": block(
        'quantizers = ["ort-int8"]\ntowers = ["vision"]'
    ),
    "logit_scale is an axis, and quantizer 'rtn:w8\\+logit-scale' has its own": block(
        'quantizers = ["rtn:w8+logit-scale"]\nlogit_scale = ["own"]'
    ),
    r"logit_scale\[0\] = 'fitted'.*own, tuned": block(f'{RTN}logit_scale = ["fitted"]'),
    "neither methods nor quantizers": block('formats = ["w8"]'),
    "both methods and quantizers": block(f'{RTN}quantizers = ["awq:w4"]'),
    "formats beside quantizers": block('quantizers = ["awq:w4"]\nformats = ["w8"]'),
    "seed as an option": block(f"{RTN}options = {{ seed = [1] }}"),
    r"formats = \[\] makes an empty product": block('methods = ["rtn"]\nformats = []'),
    r"options.ends = \[\] makes an empty": block(f"{RTN}options = {{ ends = [] }}"),
    r"seeds = \[\] makes an empty product": block(f"{RTN}seeds = []"),
    "seeds holds '3' twice": block(f"{RTN}seeds = [3, 1, 3]"),
    "seeds = 0": block(f"{RTN}seeds = 0"),
    "formats holds 'w8' twice": block('methods = ["rtn"]\nformats = ["w8", "w4", "w8"]'),
    "quantizers holds 'rtn:w8' twice": block('quantizers = ["rtn:w8", "rtn:w8@both"]'),
    "calibration holds '64' twice": block(f"{RTN}calibration = [64, 64]"),
    "calibration = 512 of the 512 samples": block(f"{RTN}calibration = [256, 512]"),
    "options.alpha holds '0.5' twice": block(f'{RTN}options = {{ alpha = [0.5, "0.5"] }}'),
    r"towers\[0\] = 'visual'": block(f'{RTN}towers = ["visual"]'),
    "value of option 'ends'": block(f'{RTN}options = {{ ends = ["a b"] }}'),
    "zip of axes of unequal lengths: formats has 2, options.ends has 1": block(
        f'{RTN}options = {{ ends = ["float"] }}\nzip = [["formats", "options.ends"]]'
    ),
    "zip names 'format', which is no axis.*did you mean 'formats'": block(
        f'{RTN}zip = [["format", "methods"]]'
    ),
    "zip names 'formats' twice": block(f'{RTN}zip = [["formats"], ["formats"]]'),
    r"\[\[sweep.skip\]\] number 2 matches no combination": block(
        f'{RTN}[[sweep.skip]]\nmatch = {{ formats = ["w8"] }}\n'
        '[[sweep.skip]]\nmatch = { methods = ["gptq"] }'
    ),
    r"\[\[sweep.only\]\] number 1 matches no": block(
        f'{RTN}[[sweep.only]]\nmatch = {{ towers = ["text"] }}'
    ),
    r"\[\[sweep.when\]\] number 1 matches no": block(
        f'{RTN}[[sweep.when]]\nmatch = {{ methods = ["awq"] }}\ntowers = ["text"]'
    ),
    "number 1: its filters leave nothing": block(
        f'{RTN}[[sweep.only]]\nmatch = {{ formats = ["w8"] }}\n'
        '[[sweep.skip]]\nmatch = { formats = ["w8"] }'
    ),
    "match number 1 says nothing": block(f"{RTN}[[sweep.skip]]\nmatch = {{}}"),
    "towers is given by the block and by its": block(
        f'{RTN}towers = ["text"]\n[[sweep.when]]\nmatch = {{ formats = ["w8"] }}\n'
        'towers = ["vision"]'
    ),
    "two .*when.* give towers for .*formats = w8": block(
        RTN
        + '[[sweep.when]]\nmatch = { formats = ["w8"] }\ntowers = ["vision"]\n'
        + '[[sweep.when]]\nmatch = { formats = ["w*"] }\ntowers = ["text"]'
    ),
    "number 2 plans vit-a/rtn:w4 a second time, after .*number 1": block(RTN)
    + block('quantizers = ["rtn:w4"]'),
    "no sweep": "",
    "schema = 'clipq-sweep/2'": (block(RTN), HEAD.replace("/1", "/2")),
    "no settings": (block(RTN), 'schema = "clipq-sweep/1"\n'),
    "cannot be read as TOML": "[[sweep",
    "no probe that a sweep measures matches 'last'": (block(RTN), f'{HEAD}probes = ["last"]\n'),
    "no metric that a sweep measures matches 'eze'.*did you mean 'ece'": (
        block(RTN), f'{HEAD}metrics = ["eze"]\n'
    ),
    "no metric of ece is computed on a probe of near": (
        block(RTN), f'{HEAD}probes = ["near"]\nmetrics = ["ece"]\n'
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_with_a_plan_is_one_message_before_any_unit(tmp_path, message):
    text, head = WRONG[message] if isinstance(WRONG[message], tuple) else (WRONG[message], HEAD)
    with pytest.raises(SweepError) as caught:
        next(planned(tmp_path, text, head).units(SETTINGS, lambda model, method: ""))
    assert re.search(message, str(caught.value).replace("\n", " "))
    assert "fix:" in str(caught.value)


def test_a_million_cells_by_mistake_are_refused_whatever_filters_leave(tmp_path):
    many = ", ".join(f"{0.001 * i:.3f}" for i in range(300))
    options = f"options = {{ alpha = [{many}], damp = [{many}], clip = [{many}] }}"
    plan = planned(tmp_path, block(f"{RTN}{options}"))
    with pytest.raises(SweepError, match=r"more than 1,000,000 metric cells.*216,000,000") as said:
        plan.survey(SETTINGS)
    assert "--yes" in said.value.hint
    small = planned(tmp_path, block(RTN))
    with pytest.raises(SweepError, match="more than 7 metric cells"):
        small.survey(SETTINGS, most=7)
    assert small.survey(SETTINGS, most=8).cells == small.survey(SETTINGS, most=None).cells == 8


def test_units_come_before_all_of_them_are_made(tmp_path):
    many = ", ".join(str(i) for i in range(1, 2000))
    plan = planned(tmp_path, block(f"{RTN}options = {{ a = [{many}] }}"))
    lazily = plan.units(SETTINGS, lambda model, method: "")
    assert [unit.quantizer for unit in itertools.islice(lazily, 2)] == ["rtn:w8,a=1", "rtn:w8,a=2"]


def project(tmp_path, text, models=("vit-a",)):
    (tmp_path / "clipq.toml").write_text(
        '[matrix]\nquantizers = ["rtn:w8"]\n'
        + "".join(f'[[models]]\nname = "{name}"\nsource = "local-dir:x"\n' for name in models)
        + '[[probes]]\nname = "id"\nrole = "in-distribution"\nsource = "folder:x"\n'
        'metrics = ["top1", "ece"]\n'
        '[[probes]]\nname = "c"\nrole = "calibration"\nsource = "folder:x"\n'
    )
    (tmp_path / "plan.toml").write_text(f"{HEAD}{text}")
    return str(tmp_path / "plan.toml")


def test_the_command_says_what_a_plan_comes_to_and_what_it_takes(tmp_path, capsys):
    plan = project(
        tmp_path,
        block(
            'methods = ["rtn", "quarot"]\nformats = ["w8", "w8a8"]\nseeds = 3\ncalibration = [0, 8]'
        ),
    )
    assert main(["sweep", "plan", plan]) == 0
    said = capsys.readouterr().out
    assert "14 units, 28 metric cells" in said
    assert "4 combinations came to a unit that there was" in said
    assert "not known before a unit was measured" in said
    arguments = ["--seconds-per-unit", "1800", "--processes", "2", "--price", "0.5"]
    assert main(["sweep", "plan", plan, *arguments]) == 0
    said = capsys.readouterr().out
    assert "7.0 h of processor time, 3.5 h in all (seconds per unit as given)" in said
    assert "cost: 3.50" in said
    assert main(["sweep", "plan", plan, *arguments, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["units"], told["cells"], told["estimate"]["seconds"]) == (14, 28, 12600.0)
    assert main(["sweep", "plan", plan, "--units"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 14


def test_time_and_disk_follow_from_the_units_of_a_folder_that_were_done(tmp_path, capsys):
    attempts = pytest.importorskip("clipq.sweep.attempts").Attempts(tmp_path / "sweep" / "attempts")
    for seconds, reason in ((10.0, ""), (30.0, ""), (900.0, "no memory")):
        attempts.add(Outcome(Unit("vit-a", "rtn:w8"), reason, seconds=seconds))
    part = tmp_path / "sweep" / "parts" / "0f" / "0f.parquet"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(500_000))
    plan = project(tmp_path, block(RTN))
    assert main(["sweep", "plan", plan, "--folder", str(tmp_path / "sweep")]) == 0
    said = capsys.readouterr().out
    assert "time: 40 s of processor time, 40 s in all (2 units that were measured)" in said
    assert "disk: 1.0 MB" in said
    assert main(["sweep", "plan", plan, "--folder", str(tmp_path / "other")]) == 2
    assert f"no sweep was run in {tmp_path / 'other'}" in capsys.readouterr().err
    assert main(["sweep", "run", plan, "--dry-run", "--folder", str(tmp_path / "other")]) == 0
    assert "not known before a unit was measured" in capsys.readouterr().out


def test_time_follows_from_units_of_the_same_model_and_method(tmp_path, capsys):
    folder = tmp_path / "sweep"
    attempts = pytest.importorskip("clipq.sweep.attempts").Attempts(folder / "attempts")
    attempts.add(Outcome(Unit("vit-a", "rtn:w8"), seconds=10.0, gpu_seconds=4.0))
    attempts.add(Outcome(Unit("vit-a", "gptq:w8"), seconds=100.0, gpu_seconds=8.0))
    attempts.add(Outcome(Unit("vit-b", "rtn:w8", CalibrationDraw(8, 1)), seconds=14.0))
    (folder / "compacted").mkdir()
    (folder / "compacted/81ab.parquet").write_bytes(bytes(600_000))
    models = "vit-a", "vit-b"
    methods = block('methods = ["rtn", "gptq", "noise"]\nformats = ["w8"]', '["vit-*"]')
    plan = project(tmp_path, methods, models)
    prices = ["--price", "36", "--gpu-price", "360"]
    asked = ["sweep", "plan", plan, "--folder", str(folder), *prices, "--format", "json"]
    assert main(asked) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["by_kind"] == {model: {"rtn": 1, "gptq": 1, "noise": 1} for model in models}
    found = told["estimate"]
    # GPTQ on vit-b as on vit-a; noise, which nobody has seen, as the three on average.
    noise = (10.0 + 100.0 + 14.0) / 3
    assert found["processor_seconds"] == pytest.approx(10 + 100 + 14 + 100 + 2 * noise)
    assert found["gpu_seconds"] == pytest.approx(4 + 8 + 0 + 8 + 2 * 12 / 3)
    spent = found["processor_seconds"] * 36 + found["gpu_seconds"] * 360
    assert found["cost"] == pytest.approx(spent / 3600)
    assert found["disk"] == 6 * 200_000
    assert found["basis"].endswith("3 units are of models and methods of which none was")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seconds-per-unit", "0"), "seconds above 0"),
        (("--seconds-per-unit", "1", "--processes", "0"), "one process or more"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, capsys, arguments, message):
    assert main(["sweep", "plan", project(tmp_path, block(RTN)), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_plan_is_made_without_torch(tmp_path):
    plan = project(tmp_path, block('methods = ["*"]\nformats = ["w8a8"]\ncalibration = [8]'))
    code = (
        f"import sys\nfrom clipq.cli import main\nassert main(['sweep', 'plan', {plan!r}]) == 0\n"
        "assert not {'torch', 'open_clip', 'duckdb', 'ray'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""Whatever a file holds, reading it gives a checked value or one error that says what to mend."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from clipq.cli import main
from clipq.data.attributes import read_attribute
from clipq.data.class_map import read_class_map
from clipq.errors import (
    BaselineError,
    ClipqError,
    ModelError,
    ProbeError,
    QuantizerError,
    RecordError,
    SettingsError,
)
from clipq.gating.baseline import (
    Baseline,
    BaselineValue,
    load_baseline,
    load_environment,
    load_values,
    save_baseline,
)
from clipq.gating.latency import load_latencies
from clipq.gating.margins import load_margins
from clipq.gating.waivers import load_waivers
from clipq.metrics import Predictions
from clipq.models.source import local_config
from clipq.quant.selection import read_table
from clipq.records import RunRecord, read_run, run_id
from clipq.settings import load_settings
from clipq.shapes import Document

TOML = {
    "settings": (load_settings, SettingsError),
    "margins": (load_margins, SettingsError),
    "waivers": (load_waivers, SettingsError),
    "latencies": (lambda path: load_latencies(path, ()), SettingsError),
    "formats": (lambda path: read_table(str(path)), QuantizerError),
}
JSON = {
    "baseline": (lambda path: load_baseline(path.parent, path.stem), BaselineError),
    "values": (lambda path: load_values(path.parent, path.stem), BaselineError),
    "record": (read_run, RecordError),
    "model": (lambda path: local_config(path.parent), ModelError),
}
CSV = {
    "class map": (lambda path: read_class_map(path.parent, ("a",), "p", None), ProbeError),
    "attributes": (
        lambda path: read_attribute(path.parent, ("a",), "colour", "p", None),
        ProbeError,
    ),
}
NAMES = {"model": "open_clip_config.json", "class map": "classmap.csv"}
NAMES |= {"attributes": "attributes.csv"}


def refused(tmp_path, kind, content, *said):
    """Read `content` as one kind of file; return the one error's text."""
    read, error = (TOML | JSON | CSV)[kind]
    ending = ".toml" if kind in TOML else ".json"
    path = tmp_path / NAMES.get(kind, f"file{ending}")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error) as caught:
        read(path)
    text = str(caught.value)
    assert path.name in text
    assert "fix: " in text
    assert len(text) < 1500  # the value is shortened
    text.encode()  # it can be printed
    for word in said:
        assert word in text
    return text


@pytest.mark.parametrize("kind", TOML)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a = " + "[" * 3000, "nested too deeply"),
        ("a = " + "{a = " * 3000, "nested too deeply"),
        (f"a = {'1' * 5000}", "limit (4300 digits)"),
        (b"a = '\xff'", "line 1 is not UTF-8"),
        ("a = '\x00'", "NUL"),
        ("a = 1\na = 2", "overwrite"),
        ("a = \n", "line 1"),
        ('a = "\\ud800"', "cannot be read as TOML"),
        ("=", "cannot be read as TOML"),
    ],
)
def test_toml_that_cannot_be_read(tmp_path, kind, content, said):
    text = refused(tmp_path, kind, content, "cannot be read as TOML", said)
    assert "set_int_max" not in text


@pytest.mark.parametrize("kind", TOML)
@pytest.mark.parametrize("value", [f"0x{'f' * 5000}", ".".join("a" * 3000) + " = 1"])
def test_toml_that_is_read_and_fits_nothing(tmp_path, kind, value):
    refused(tmp_path, kind, value if "=" in value else f"a = {value}")


@pytest.mark.parametrize("kind", JSON)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "line 1 column 1"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("1" * 5000, "limit (4300 digits)"),
        ('{"a": NaN}', "'NaN' is no finite number"),
        ('{"a": [-Infinity]}', "'-Infinity' is no finite number"),
        ('{"a": 1e999}', "'1e999' is no finite number"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": "x\\ud800"}', "half of a character"),
        ('{"\\udc00": 1}', "half of a character"),
        (b'{"a": "\xff"}', "line 1 is not UTF-8"),
        ("{}\0", "NUL"),
        ("\ufeff\ufeff{}", "cannot be read as JSON"),
    ],
)
def test_json_that_cannot_be_read(tmp_path, kind, content, said):
    refused(tmp_path, kind, content, "cannot be read as JSON", said)


@pytest.mark.parametrize("kind", JSON)
@pytest.mark.parametrize("content", ["[]", "null", '"text"', "3", "true", "{}", '{"schema": []}'])
def test_json_of_another_form(tmp_path, kind, content):
    refused(tmp_path, kind, content)


@pytest.mark.parametrize("kind", CSV)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty"),
        ('class,head_class,file,colour\n"a,b,c,d', "line 2: unexpected end of data"),
        ('class,head_class,file,colour\n"a"x,b,c,d', "cannot be read as CSV"),
        ("class,head_class,file,colour\na,b", "each has 4 values"),
        ("class,head_class,file,colour\na,b,c,d,e", "each has 4 values"),
        ("class,class,head_class,file,file,colour\na,a,b,a,a,r", "2 column"),
        ("klass,datei\na,b", "no column"),
        (b"class,head_class,file,colour\na,b,c,\xff", "line 2 is not UTF-8"),
        ("class,head_class,file,colour\na,b,c,\0", "NUL"),
        ("class,head_class,file,colour\n" + "a" * 200_000 + ",b,c,d", "field larger"),
    ],
)
def test_csv_that_cannot_be_read(tmp_path, kind, content, said):
    refused(tmp_path, kind, content, said)


SETTINGS = """\
[matrix]
quantizers = ["rtn:w8"]
[[models]]
name = "a"
source = "local-dir:m"
[[probes]]
name = "id"
role = "in-distribution"
source = "webdataset:d"
[[probes]]
name = "c"
role = "calibration"
source = "webdataset:d"
"""


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (f"[statistics]\nnoise_factor = {'9' * 400}", "noise_factor = 999"),
        ("[statistics]\nnoise_factor = inf", "noise_factor = inf"),
        ("[statistics]\nalpha = nan", "alpha = nan"),
        ("[statistics]\nalpha = -0.0", "alpha = -0.0"),
        ("[statistics]\nreplicates = 1e3", "replicates = 1000.0"),
        ("[statistics]\nseed = 9223372036854775808", "seed = 9223372036854775808"),
        ("[clipq]\nthreads = 99999999999", "threads = 99999999999"),
        ("[clipq]\nthreads = true", "threads = True"),
        (f"[clipq]\nthreads = 0x{'f' * 5000}", "threads = a number of thousands of digits"),
        ('[clipq]\ncache = "a\\u0000b"', "cache = 'a\\x00b'"),
        ('[clipq]\nlatency = ""', "latency = ''"),
        ('[clipq]\nplugins = ["a", 3]', "plugins[1] = 3"),
        ("clipq = 3", "clipq = 3"),
        ("[profiles]\nquick = []", "[profiles]: quick = []"),
        ("[[history]]\nrecord = true", "history = [{'record': True}]"),
        ("[history]\nrecord = 1", "[history]: record = 1"),
        (f"[clipq]\n{'k' * 100_000} = 1", "unknown key 'kkk"),
        ('[[probes]]\nname = "é"\nrole = "ood"\nsource = "x"', "[[probes]] number 3: name = "),
        ('[[probes]]\nname = "x"\nrole = "ood"', "[[probes]] number 3: no source"),
        ('[[probes]]\nname = "x"\nrole = "ood"\nsource = "x"\ncorruption = {}', "unknown key"),
    ],
)
def test_settings_of_a_wrong_value(tmp_path, added, said):
    first, rest = (added, SETTINGS) if added.startswith("clipq") else (SETTINGS, added)
    refused(tmp_path, "settings", f"{first}\n{rest}", said)


def test_a_byte_order_mark_is_no_mistake_and_whole_numbers_are_fine_for_others(tmp_path):
    path = tmp_path / "clipq.toml"
    path.write_text("\ufeff" + SETTINGS + "[statistics]\nnoise_factor = 2\n")
    assert load_settings(path).statistics.noise_factor == 2.0
    (tmp_path / "classmap.csv").write_text('\ufeffclass,head_class\n"a","b, c"\n')
    assert read_class_map(tmp_path, ("a",), "p", None) == (("b, c",),)


@pytest.mark.parametrize("text", ["tool = 3", "[tool]\nclipq = 3", "[tool.clipq]", "x = 1"])
def test_pyproject_names_its_table(tmp_path, text):
    path = tmp_path / "pyproject.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"pyproject\.toml, \[tool\.clipq\]: "):
        load_settings(path)


@pytest.fixture
def stored(tmp_path):
    """Write a good baseline and give its JSON; what is changed is written back."""
    predictions = Predictions({"id": np.array(["a", "b"]), "mcm": np.array([0.1, 0.2])}, {"s": 1.0})
    values = {"id.top1": BaselineValue(0.9, "fraction", 1, 0.9)}
    change = {"date": "2026-01-01", "reason": "first baseline", "changed": 1}
    known = Baseline(
        "m", "local-dir:m", {"torch": "2"}, {"a": "b"}, {"id": "c"}, values, (change,),
        {"id": predictions},
    )  # fmt: skip
    save_baseline(tmp_path, known)
    path = tmp_path / "m.json"

    @contextlib.contextmanager
    def change_it():
        plain = json.loads(path.read_text())
        yield plain
        path.write_text(json.dumps(plain))

    return change_it


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda plain: plain.pop("columns_sha256"), "no columns_sha256"),
        (lambda plain: plain.update(scalars=None), "scalars = None"),
        (lambda plain: plain["scalars"]["id"].update(s="x"), "scalars.id.s = 'x'"),
        (lambda plain: plain.update(environment=[1]), "environment = [1]"),
        (lambda plain: plain["environment"].update(torch={}), "environment.torch = {}"),
        (lambda plain: plain.update(identity=[]), "identity = []"),
        (lambda plain: plain["probes"].update(id=3), "probes.id = 3"),
        (lambda plain: plain.update(model="other"), "model = 'other'\n  fix: model must be 'm'"),
        (lambda plain: plain.update(history=[{}]), "history[0]: no date"),
        (lambda plain: plain.update(noise_from="x"), "noise_from = 'x'"),
        (lambda plain: plain.update(sources=[]), "unknown key 'sources'\n  fix: did you mean"),
        (
            lambda plain: plain.update(schema="clipq-baseline/1"),
            "this clipq reads clipq-baseline/2",
        ),
        (lambda plain: plain["metrics"].update({"id.top1": 3}), 'metrics."id.top1" = 3'),
        (lambda plain: plain["metrics"]["id.top1"].update(noise="0.1"), "noise = '0.1'"),
        (
            lambda plain: plain["metrics"]["id.top1"].update(value=True),
            'id.top1": value =',
        ),
        (lambda plain: plain["metrics"]["id.top1"].update(nois=0.1), "did you mean 'noise'"),
        (lambda plain: plain["metrics"]["id.top1"].pop("version"), "no version"),
        (lambda plain: plain["metrics"]["id.top1"].update(version=1.0), "version = 1.0"),
    ],
)
def test_a_baseline_of_a_wrong_value(tmp_path, stored, damage, said):
    with stored() as plain:
        damage(plain)
    for read in (load_baseline, load_values):
        with pytest.raises(BaselineError) as caught:
            read(tmp_path, "m")
        assert "m.json, " in str(caught.value)
        assert said in str(caught.value)
        assert "clipq baseline update m" in str(caught.value)
    assert load_environment(tmp_path, "m") == {}


def test_a_baseline_of_whole_numbers_is_fine(tmp_path, stored):
    with stored() as plain:
        plain["metrics"]["id.top1"].update(value=1, noise=0)
    assert load_baseline(tmp_path, "m").values["id.top1"].value == 1.0


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda plain: plain.update(statistics={"replicates": 500}), "statistics: no alpha"),
        (lambda plain: plain.update(commit={"dirty": False}), "commit: no sha"),
        (lambda plain: plain.update(planned=10**30), "planned = 1000000"),
        (lambda plain: plain.update(planned=-1), "planned = -1"),
        (lambda plain: plain.update(planned=True), "planned = True"),
        (lambda plain: plain.update(selection={"complete": 3}), "selection.complete"),
        (lambda plain: plain.update(versions={"a": 1}), "versions.a = 1"),
        (lambda plain: plain.update(surplus=1), "unknown key 'surplus'"),
        (lambda plain: plain.update(_id="x"), "unknown key '_id'"),
    ],
)
def test_a_record_of_a_wrong_value(tmp_path, damage, said):
    plain = RunRecord("ci", 0, ()).to_plain()
    damage(plain)
    plain["id"] = run_id(plain)
    refused(tmp_path, "record", json.dumps(plain), said)


@pytest.mark.parametrize("depth", [100, 300, 900, 950, 980, 990])
def test_a_record_that_is_nested_almost_too_deeply(tmp_path, depth):
    plain = RunRecord("ci", 0, ()).to_plain()
    plain["versions"] = {"a": "HERE"}
    text = json.dumps(plain).replace('"HERE"', "[" * depth + "]" * depth)
    refused(tmp_path, "record", text)


@pytest.mark.parametrize(
    ("name", "content", "arguments"),
    [
        ("clipq.toml", "a = " + "[" * 3000, ("list", "cases")),
        ("clipq.toml", SETTINGS + f"[statistics]\nnoise_factor = {'9' * 400}", ("list", "cases")),
        ("clipq.toml", SETTINGS + f"[clipq]\nthreads = {'9' * 5000}", ("list", "models")),
        ("report.json", '{"a": "\\ud800"}', ("report", "report.json")),
        ("report.json", "[" * 100_000, ("report", "report.json")),
        ("baselines/a.json", '{"schema": "clipq-baseline/2"}', ("baseline", "show", "a")),
        ("baselines/a.json", '{"a": 1, "a": 1}', ("baseline", "show", "a")),
        ("baselines/margins.toml", "a = " + "[" * 3000, ("power",)),
    ],
)
def test_the_command_line_says_it_once_and_exits_with_2(
    tmp_path, monkeypatch, capsys, name, content, arguments
):
    (tmp_path / "baselines").mkdir()
    (tmp_path / "clipq.toml").write_text(SETTINGS)
    (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    assert main(list(arguments)) == 2
    said = capsys.readouterr().err
    assert said.count("clipq: ") == 1
    assert Path(name).name in said
    assert "Traceback" not in said


def test_every_error_is_the_one_family():
    assert all(issubclass(error, ClipqError) for _, error in (TOML | JSON | CSV).values())


def test_a_file_that_is_not_there_needs_another_path_and_no_correction(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read as TOML") as caught:
        Document(tmp_path / "nowhere.toml", "TOML", SettingsError).parse()
    assert caught.value.hint == "give the path of a file that is there"

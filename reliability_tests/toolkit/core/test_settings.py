"""Settings are read strictly: each mistake is one message with file, key, value and way out."""

from __future__ import annotations

import pytest

from clipq.errors import SettingsError
from clipq.settings import find_settings, load_settings

GOOD = """\
[clipq]
cache = "somewhere"
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
name = "calibration"
role = "calibration"
source = "webdataset:d"
split = "calibration"
"""


def load(tmp_path, text):
    (tmp_path / "clipq.toml").write_text(text)
    return load_settings(tmp_path / "clipq.toml")


def test_paths_start_from_the_settings_file_and_defaults_hold(tmp_path):
    settings = load(tmp_path, GOOD)
    assert settings.cache == tmp_path / "somewhere"
    assert settings.baselines == tmp_path / "baselines"
    assert settings.threads == 1
    assert settings.policy == "ci"
    assert settings.in_distribution.name == "id"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[clipq]", "[clipq", "cannot be read as TOML"),
        ("cache =", "cahce =", "unknown key 'cahce'.*did you mean 'cache'"),
        ('"somewhere"', "3", "cache = 3.*non-empty text"),
        ('["rtn:w8"]', "[]", "quantizers is empty"),
        ('["rtn:w8"]', '"rtn:w8"', "must be a list of texts"),
        ('role = "calibration"', 'role = "ood"', "0 probes have the role 'calibration'"),
        ('role = "in-distribution"', 'role = "in-dist"', "did you mean 'in-distribution'"),
        ('name = "calibration"', 'name = "id"', "'id' is given twice"),
        ('name = "a"', 'name = "a/b"', "a name holds letters"),
        ("[matrix]", "[matrx]", "unknown key 'matrx'"),
        ("[matrix]", "[statistics]\nalpha = 0\n[matrix]", "alpha = 0.*above 0.0 and below 0.5"),
        ("[matrix]", "[statistics]\nalpha = true\n[matrix]", "alpha = True"),
        ("[matrix]", "[statistics]\npower = 1.0\n[matrix]", "power = 1.0"),
        ("[matrix]", "[statistics]\nreplicates = 10\n[matrix]", "whole number >= 100"),
        ("[matrix]", "[statistics]\nseed = -1\n[matrix]", "seed = -1"),
        ("[matrix]", '[statistics]\ncorrection = "hol"\n[matrix]', "did you mean 'holm'"),
        ("[matrix]", "[statistics]\nalhpa = 0.1\n[matrix]", "did you mean 'alpha'"),
        ("[[models]]", "[models]", r"no \[\[models\]\] tables"),
        ("[clipq]", "[clipq]\nthreads = 0", "threads = 0.*whole number"),
        ("[clipq]", '[clipq]\npolicy = "lax"', "policy = 'lax'"),
    ],
)
def test_a_mistake_is_named_with_the_way_out(tmp_path, old, new, message):
    with pytest.raises(SettingsError, match=rf"(?s){message}"):
        load(tmp_path, GOOD.replace(old, new, 1))


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(SettingsError, match="no settings file"):
        load_settings(tmp_path / "clipq.toml")


def test_the_nearest_settings_above_are_found_also_in_pyproject(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        "[tool.clipq.matrix]\nquantizers = ['rtn:w8']\n"
        "[[tool.clipq.models]]\nname = 'a'\nsource = 'local-dir:m'\n"
        "[[tool.clipq.probes]]\nname = 'id'\nrole = 'in-distribution'\nsource = 'webdataset:d'\n"
        "[[tool.clipq.probes]]\nname = 'c'\nrole = 'calibration'\nsource = 'webdataset:d'\n"
    )
    (tmp_path / "deep" / "er").mkdir(parents=True)
    found = find_settings(tmp_path / "deep" / "er")
    assert found == tmp_path / "pyproject.toml"
    assert load_settings(found).models[0].name == "a"
    assert find_settings(tmp_path.parent / "nowhere") in (None, find_settings(tmp_path.parent))

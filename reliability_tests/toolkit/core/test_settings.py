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


def test_pairs_to_train_on_are_optional_and_never_evaluated(tmp_path):
    assert load(tmp_path, GOOD).proxy is None
    table = '[[probes]]\nname = "p"\nrole = "proxy"\nsource = "webdataset:d"\n'
    settings = load(tmp_path, GOOD + table)
    assert settings.proxy is not None
    assert settings.proxy.name == "p"
    assert [probe.name for probe in settings.evaluated] == ["id"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[clipq]", "[clipq", "cannot be read as TOML"),
        ("cache =", "cahce =", "unknown key 'cahce'.*did you mean 'cache'"),
        ('"somewhere"', "3", "cache = 3.*non-empty text"),
        ('["rtn:w8"]', "[]", r"quantizers = \[\].*name a quantizer"),
        ('["rtn:w8"]', '"rtn:w8"', "quantizers = 'rtn:w8'.*must be a list of texts"),
        ('role = "calibration"', 'role = "ood"', "0 probes have the role 'calibration'"),
        ('role = "in-distribution"', 'role = "in-dist"', "did you mean 'in-distribution'"),
        ('name = "calibration"', 'name = "id"', "'id' is given twice"),
        ('name = "a"', 'name = "a/b"', "a name holds letters"),
        ("[matrix]", "[matrx]", "unknown key 'matrx'"),
        ("[matrix]", "[statistics]\nalpha = 0\n[matrix]", "alpha = 0.*above 0.0 and below 0.5"),
        ("[matrix]", "[statistics]\nalpha = true\n[matrix]", "alpha = True"),
        ("[matrix]", "[statistics]\npower = 1.0\n[matrix]", "power = 1.0"),
        ("[matrix]", "[statistics]\nreplicates = 10\n[matrix]", "whole number >= 100"),
        ("[matrix]", "[profiles.fast]\nprobes = []\n[matrix]", "did you mean 'full'|known"),
        ("[matrix]", "[profiles.quick]\nprobe = ['id']\n[matrix]", "did you mean 'probes'"),
        ("split =", 'distance = "near"\nsplit =', "distance of a probe with role 'calibration'"),
        ("split =", 'corruptions = ["fog"]\nsplit =', "corruptions with role = 'calibration'"),
        ("split =", 'attack = "fgsm"\nsplit =', "'adversarial' and `attack` go together"),
        (
            "[clipq]",
            '[[probes]]\nname = "p"\nrole = "proxy"\nsource = "webdataset:d"\n'
            '[[probes]]\nname = "q"\nrole = "proxy"\nsource = "webdataset:e"\n[clipq]',
            "2 probes have the role 'proxy'.*at most one",
        ),
        *(
            (
                "[clipq]",
                f'[[probes]]\nname = "p"\nrole = "proxy"\nsource = "webdataset:d"\n{key}\n[clipq]',
                message,
            )
            for key, message in (
                ('use = "release"', "use = 'release' with role = 'proxy'"),
                ('metrics = ["top1"]', "metrics with role = 'proxy'.*images and captions are all"),
                ('cluster = "a"\ngroup = "b"', "group, cluster with role = 'proxy'"),
                ('distance = "far"', "distance of a probe with role 'proxy'"),
                ('corruptions = ["fog"]', "corruptions with role = 'proxy'"),
                ('attack = "pgd"', "'adversarial' and `attack` go together"),
            )
        ),
        ("split =", "samples = -1\nsplit =", "samples = -1.*whole number >= 0"),
        ("split =", 'metrics = "top1"\nsplit =', "metrics must be a list of texts"),
        ("[matrix]", "[statistics]\nseed = -1\n[matrix]", "seed = -1"),
        ("[matrix]", '[statistics]\ncorrection = "hol"\n[matrix]', "did you mean 'holm'"),
        ("[matrix]", "[statistics]\nalhpa = 0.1\n[matrix]", "did you mean 'alpha'"),
        ("[[models]]", "[models]", r"models = \{.*one or more tables \[\[models\]\]"),
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


MORE = """
[[probes]]
name = "c"
role = "corruption"
source = "webdataset:d"
corruptions = ["*_noise"]
severities = [2, 4]
draws = 1
samples = 30
[[probes]]
name = "a"
role = "adversarial"
source = "webdataset:d"
attack = "pgd"
epsilon = 1.5
against = "fp32"
[profiles.quick]
probes = ["id"]
"""


def test_corruptions_attacks_and_profiles(tmp_path):
    settings = load(tmp_path, GOOD + MORE)
    corrupted, attacked = settings.probe("c"), settings.probe("a")
    assert corrupted.corruption.kinds == ("*_noise",)
    assert corrupted.corruption.severities == (2, 4)
    assert (corrupted.corruption.draws, corrupted.samples) == (1, 30)
    assert (attacked.attack.name, attacked.attack.epsilon) == ("pgd", 1.5)
    assert (attacked.attack.steps, attacked.attack.against) == (10, "fp32")
    assert settings.profiles["quick"].probes == ("id",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "severities = [2, 4]",
            "severities = [0]",
            r"\[0\] = 0\n.*a whole number from 1 to 5",
        ),
        (
            "severities = [2, 4]",
            "severities = [true]",
            r"\[0\] = True\n.*from 1 to 5",
        ),
        ('corruptions = ["*_noise"]\n', "", "severities with role = 'corruption'"),
        ('attack = "pgd"\n', "", "attack = None"),
        ('attack = "pgd"', 'attack = "pdg"', "did you mean 'pgd'"),
        ("epsilon = 1.5", "epsilon = 0", "above 0.0 and below 255.0"),
        ('against = "fp32"', 'against = "int8"', "against = 'int8'"),
    ],
)
def test_mistakes_in_corruptions_and_attacks(tmp_path, old, new, message):
    with pytest.raises(SettingsError, match=message):
        load(tmp_path, (GOOD + MORE).replace(old, new))


POOLED = """
[[probes]]
name = "far"
role = "ood"
source = "webdataset:d"
[[probes]]
name = "shifted"
role = "shift"
source = "webdataset:d"
[[probes]]
name = "final"
role = "shift"
source = "webdataset:d"
use = "release"
[[probes]]
name = "pooled"
role = "pooled"
probes = ["id", "shifted"]
"""


def test_a_pooled_probe_holds_what_it_names_or_all_that_have_labels(tmp_path):
    def members(text):
        return [probe.name for probe in load(tmp_path, GOOD + text).members("pooled")]

    assert members(POOLED) == ["id", "shifted"]
    assert members(POOLED.replace('probes = ["id", "shifted"]\n', "")) == ["id", "shifted"]
    everything = POOLED.replace('probes = ["id", "shifted"]', 'use = "release"')
    assert members(everything) == ["id", "shifted", "final"]


def test_a_probe_for_releases_is_withheld_under_every_other_policy(tmp_path):
    own = '[policies.lax]\nblocks = ["fail", "inconclusive"]\n'
    settings = load(tmp_path, GOOD + POOLED + own)
    for policy, withheld in (("ci", ["final"]), ("lax", ["final"]), ("release", [])):
        assert [probe.name for probe in settings.under(policy).withheld] == withheld


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["id", "shifted"]', '["id", "shifted2"]', "unknown probe 'shifted2'.*mean 'shifted'"),
        ('["id", "shifted"]', '["id", "far"]', "pools 'far', which has the role 'ood'"),
        ('["id", "shifted"]', '["id", "calibration"]', "'calibration', which has the role"),
        ('["id", "shifted"]', '["id", "pooled"]', "pools 'pooled', which has the role 'pooled'"),
        ('["id", "shifted"]', '["id"]', "'pooled' pools id\n.*two or more"),
        ('["id", "shifted"]', '["id", "id"]', "'pooled' pools id, id\n.*each once"),
        ('["id", "shifted"]', '["id", "final"]', "pools 'final', which is for releases only"),
        ('role = "pooled"', 'role = "pooled"\nsource = "folder:x"', "role = 'pooled' and source"),
        ('role = "pooled"', 'role = "pooled"\nsamples = 9', "role = 'pooled' and samples"),
        ('role = "pooled"\n', 'role = "shift"\n', "probes = .* with role = 'shift'"),
        ('role = "shift"\nsource = "webdataset:d"\nuse', 'role = "shift"\nuse', "no source\n"),
        ('use = "release"', 'use = "ci"', "use = 'ci'"),
        ('role = "ood"', 'role = "ood"\nprobes = ["id"]', "probes = .* with role = 'ood'"),
    ],
)
def test_what_cannot_be_pooled_or_kept_for_releases_is_refused(tmp_path, old, new, message):
    assert POOLED.count(old) >= 1
    with pytest.raises(SettingsError, match=f"(?s){message}"):
        load(tmp_path, GOOD + POOLED.replace(old, new, 1))


def test_what_every_run_needs_cannot_be_kept_for_releases(tmp_path):
    text = GOOD.replace('role = "in-distribution"', 'role = "in-distribution"\nuse = "release"')
    with pytest.raises(SettingsError, match="use = 'release' with role = 'in-distribution'"):
        load(tmp_path, text)

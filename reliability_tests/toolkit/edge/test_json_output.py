"""What `--json` prints is one strict JSON document that says what the table says."""

from __future__ import annotations

import json

import pytest

from clipq.cli.main import main


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@pytest.fixture
def printed(project, monkeypatch, capsys):
    """Run a command in the project; return its exit code and the document that it printed."""
    monkeypatch.chdir(project.root)

    def run(*arguments: str) -> tuple[int, object]:
        code = main(list(arguments))
        return code, json.loads(capsys.readouterr().out, parse_constant=refuse)

    return run


def test_cases_have_ids_and_parts(printed):
    code, cases = printed("list", "cases", "--json")
    assert code == 0
    assert len(cases) == 6
    assert cases[0]["id"] == "{model}/{quantizer}/{probe}.{metric}".format(**cases[0])


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [("models", "name", "vit-clean"), ("probes", "role", "ood"), ("metrics", "name", "ece")],
)
def test_listings_are_lists_of_objects(printed, kind, key, value):
    code, entries = printed("list", kind, "--json")
    assert code == 0
    assert value in [entry[key] for entry in entries]


def test_quantizers_of_the_matrix_stand_apart_from_known_methods(printed):
    _, document = printed("list", "quantizers", "--json")
    assert [entry["quantizer"] for entry in document["matrix"]] == ["rtn:w8", "rtn:w8a8"]
    assert {"rtn", "gptq"} <= {entry["name"] for entry in document["methods"]}


def test_power_prints_every_margin_and_still_exits_1_where_one_is_undecidable(printed, project):
    project.use_reviewed_baseline()
    margins = project.root / "baselines" / "margins.toml"
    wide, narrow = (f'[[margin]]\n[margin.metrics]\n"*" = {m}\n' for m in (0.5, 0.0005))
    margins.write_text(wide)
    code, found = printed("power", "--json")
    assert code == 0
    assert {entry["margin"] for entry in found} == {0.5}
    margins.write_text(narrow)
    code, found = printed("power", "--json")
    assert code == 1
    assert any(entry["problem"] for entry in found)


def test_a_baseline_is_shown_with_provenance_and_values(printed, project):
    code, shown = printed("baseline", "show", "--json")
    stored = json.loads((project.root / "baselines" / "vit-clean.json").read_text())
    assert code == 0
    assert len(shown) == 1
    for key in ("model", "columns_sha256", "environment", "history", "metrics"):
        assert shown[0][key] == stored[key]


def test_probes_are_listed_with_all_their_settings(printed):
    code, probes = printed("list", "probes", "--json")
    assert code == 0
    assert [probe["name"] for probe in probes] == ["id", "calibration", "digits"]
    assert probes[0]["group"] == "colour"

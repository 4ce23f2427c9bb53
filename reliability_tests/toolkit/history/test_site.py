"""The trend site's files: what they say, that they are inert, small and written whole."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from history_runs import small_run
from hypothesis import given
from hypothesis import strategies as st
from trend_site import synthetic_table

from clipq.cli import main
from clipq.errors import CacheError, SettingsError
from clipq.history.site import CommitLink, commit_link, write_site
from clipq.history.site.columns import ALPHABET, MISSING, decimal_step, pack, whole_steps
from clipq.history.site.site_payload import current_state, matrix_of, overview, pair_columns
from clipq.history.steps import Levels
from clipq.history.store import open_store
from clipq.verdicts import Verdict

VERDICTS = list(Verdict)


def unpack(text):
    """Read a column independently of the package and of its script."""
    numbers, digits = [], []
    for letter in text[1:]:
        value = ALPHABET.index(letter)
        digits.append(value & 31)
        if value < 32:
            whole = sum(digit << 5 * place for place, digit in enumerate(digits))
            numbers.append(-(whole >> 1) - 1 if whole & 1 else whole >> 1)
            digits = []
    if text[0] == "~":
        return np.cumsum(numbers, dtype=np.int64).tolist()
    pairs = zip(np.cumsum(numbers[0::2]).tolist(), numbers[1::2], strict=True)
    return [level for level, more in pairs for _ in range(more + 1)]


def calls(text):
    """Return the arguments of a data file's one call, read as JSON."""
    found = re.fullmatch(r"clipqSite\.(overview|pair)\((.*)\);\n", text, re.DOTALL)
    assert found, text[:80]
    return json.loads(f"[{found[2]}]")


def data_of(folder):
    (path,) = folder.glob("data/overview.*.js")
    return calls(path.read_text("ascii"))[0]


@pytest.fixture(scope="module")
def table():
    return synthetic_table(40, 200)


@given(
    st.lists(
        st.lists(st.one_of(st.just(MISSING), st.integers(-(2**30), 2**30)), max_size=40), max_size=6
    )
)
def test_packed_columns_read_back_as_they_were(rows):
    width = min((len(row) for row in rows), default=0)
    array = np.array([row[:width] for row in rows], np.int64).reshape(len(rows), width)
    assert [unpack(text) for text in pack(array)] == array.tolist()


def test_a_constant_column_is_a_few_characters_and_noise_a_few_each():
    constant, noise = pack(np.array([[1234] * 500, list(range(0, 50000, 100))]))
    assert len(constant) < 10
    assert len(noise) < 4 * 500


@given(st.floats(1e-6, 1e3), st.floats(-1e9, 1e9))
def test_rounding_keeps_a_thousandth_of_the_margin_and_large_values_countable(margin, value):
    exponent = decimal_step(margin, largest=abs(value))
    step = 10.0**exponent
    ((whole,),) = whole_steps(np.array([[value]]), np.array([exponent]))
    assert abs(whole) <= 2**30
    assert abs(whole * step - value) <= 0.5 * step * (1 + 1e-6) + 1e-12 * abs(value)
    assert step <= max(margin / 1000, 10 * abs(value) / 2**30) * (1 + 1e-9)


@pytest.mark.parametrize(("yard", "largest"), [(5e-324, 0.0), (5e-324, 5e-324), (1.0, 2e-311)])
def test_the_smallest_numbers_have_a_step(yard, largest):
    exponent = decimal_step(yard, largest=largest)
    ((whole,),) = whole_steps(np.array([[largest]]), np.array([exponent]))
    assert abs(whole) <= 2**30


def test_what_is_not_finite_is_missing():
    values = np.array([[math.nan, math.inf, -math.inf, 1.0]])
    assert whole_steps(values, np.array([0])).tolist() == [[MISSING, MISSING, MISSING, 1]]


def test_equal_tables_give_equal_files(table, tmp_path):
    for name in ("a", "b"):
        write_site(table, tmp_path / name)
    first, second = (
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (tmp_path / "a", tmp_path / "b")
    )
    assert first == second


def test_the_files_hold_the_values_of_the_table(table, tmp_path):
    facts = write_site(table, tmp_path)
    assert facts.cases == len(table.cases) == 200
    data = data_of(tmp_path)
    for row, case in enumerate(table.cases):
        pair = data["cases"]["pair"][row]
        model, quantizer = data["pairs"][pair]
        key = data["keys"][data["cases"]["key"][row]]
        assert f"{model}/{quantizer}/{key}" == case
        number, columns = calls((tmp_path / data["files"][pair]).read_text("ascii"))
        assert number == pair
        at = [r for r in range(len(table.cases)) if data["cases"]["pair"][r] == pair].index(row)
        step = 10.0 ** columns["exponent"][at]
        for name in ("loss", "error", "baseline"):
            packed = np.array(unpack(columns[name][at]), float)
            packed[packed == MISSING] = math.nan
            np.testing.assert_allclose(
                packed * step, getattr(table, name)[row], rtol=1e-9, atol=0.51 * step
            )
        assert unpack(columns["verdict"][at]) == table.verdicts[row].tolist()


def test_an_observed_column_is_kept_only_where_it_does_not_follow(table):
    rows = np.arange(3)
    levels = [Levels()] * len(table.cases)
    gone = np.isnan(table.loss)
    whole = replace(table, loss=np.where(gone, 0.0, table.loss))
    sign = np.array([-1.0 if d == "higher" else 1.0 for d in table.directions])
    whole = replace(whole, observed=whole.baseline + sign[:, None] * whole.loss)
    assert pair_columns(whole, rows, levels=levels)["observed"] == [None] * 3
    changed = whole.observed.copy()
    changed[1, 5] += 0.5
    kept = pair_columns(replace(whole, observed=changed), rows, levels=levels)["observed"]
    assert [text is None for text in kept] == [True, False, True]
    signed = replace(whole, directions=("zero",) * len(table.cases))
    assert None not in pair_columns(signed, rows, levels=levels)["observed"]


def test_a_case_stands_where_its_last_run_left_it_since_its_verdict_is_the_same():
    verdicts = np.array([[0, 4, 4, -1, 4, -1], [-1] * 6, [0] * 6, [4, 0, 4, 0, 4, 0]], np.int8)
    now = current_state(replace(synthetic_table(6, 100), verdicts=verdicts))
    assert now.last.tolist() == [4, -1, 5, 5]
    assert now.verdict.tolist() == [4, -1, 0, 0]
    assert now.since.tolist() == [1, -1, 0, 5]


def test_a_pair_passes_by_the_policy_of_each_run(table):
    inconclusive = np.full_like(table.verdicts, VERDICTS.index(Verdict.INCONCLUSIVE))
    policies = ["ci", "release"] * (len(table.runs) // 2)
    runs = tuple(replace(r, policy=p) for r, p in zip(table.runs, policies, strict=True))
    changed = replace(table, runs=runs, verdicts=inconclusive)
    found = overview(changed, (), matrix=matrix_of(changed), link=None)
    (there,) = {tuple(unpack(text)) for text in found["pairPresent"]}
    assert set(there) == {4}
    assert {tuple(unpack(text)) for text in found["pairPassed"]} == {tuple([4, 0] * 20)}


def test_data_can_end_no_script_and_start_no_markup(table, tmp_path):
    name = '</script><!--&\u2028"'
    hostile = replace(
        table, cases=tuple(f"{name}/{case}" for case in table.cases), units=(name,) * 200
    )
    write_site(hostile, tmp_path)
    for path in tmp_path.glob("data/*.js"):
        content = path.read_bytes()
        assert content.isascii()
        assert not set(b"<>&") & set(content)
    assert '</script><!--&\u2028"' in data_of(tmp_path)["units"]


def test_halves_of_surrogate_pairs_do_not_reach_an_address(table, tmp_path):
    write_site(replace(table, cases=tuple(f"a\ud800/{c}" for c in table.cases)), tmp_path)
    assert data_of(tmp_path)["models"] == ["a\ufffd"]


def test_the_page_names_its_files_allows_no_others_and_no_inline_script(table, tmp_path):
    facts = write_site(table, tmp_path, link=CommitLink("https://example.org/", ""))
    page = facts.index.read_text("utf-8")
    named = re.findall(r'(?:src|href)="((?:data|assets)/[^"]+)"', page)
    assert len(named) == 3
    assert all((tmp_path / name).is_file() for name in named)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    assert not re.search(r"<script[^>]*>[^<]", page)
    assert not re.search(r"<[^>]* on\w+=|style=", page)
    for path in tmp_path.rglob("*.*"):
        addresses = set(re.findall(r"\w+://[^\"'`\s)]+", path.read_text("utf-8")))
        assert addresses <= {"http://www.w3.org/2000/svg", "https://example.org/"}, path


def test_readers_without_scripts_get_the_outcome(table, tmp_path):
    page = write_site(table, tmp_path).index.read_text("utf-8")
    state = "passed" if table.runs[-1].passed else "failed"
    assert f"Run 40 of 2025-02-09 {state}: " in page
    assert "40 runs, 200 cases." in page


def test_a_second_writing_replaces_the_first_and_leaves_other_files_alone(table, tmp_path):
    write_site(table, tmp_path)
    before = set(tmp_path.glob("*/*"))
    (tmp_path / "data" / "notes.txt").write_text("mine")
    (tmp_path / "CNAME").write_text("trends.example.org")
    changed = replace(table, loss=table.loss + 0.001)
    facts = write_site(changed, tmp_path)
    after = set(tmp_path.glob("*/*"))
    assert len(after) == facts.files - 1 + 1
    stale = {path for path in before if path.name.startswith(("pair", "overview"))}
    assert not stale & after
    assert (tmp_path / "data" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "CNAME").exists()


def test_a_folder_with_other_files_is_left_alone(table, tmp_path):
    (tmp_path / "index.html").write_text("<h1>My site</h1>")
    with pytest.raises(SettingsError, match="not of a trend site"):
        write_site(table, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    with pytest.raises(SettingsError, match="is a file"):
        write_site(table, tmp_path / "index.html")


def test_a_folder_that_cannot_be_made_is_named(table, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot write"):
        write_site(table, tmp_path / "file" / "site")


def test_a_table_without_runs_says_how_to_get_one(table, tmp_path):
    empty = {name: getattr(table, name)[:, :0] for name in ("loss", "error", "observed")}
    with pytest.raises(SettingsError, match="no recorded run"):
        write_site(replace(table, runs=(), **empty), tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_one_run_and_cases_that_no_run_has_make_a_site(tmp_path):
    one = synthetic_table(1, 100)
    verdicts = one.verdicts.copy()
    verdicts[0] = -1
    facts = write_site(replace(one, verdicts=verdicts), tmp_path)
    assert (facts.runs, facts.steps) == (1, 0)
    assert data_of(tmp_path)["cases"]["last"][0] == -1


@pytest.mark.parametrize(
    "template",
    [
        "https://example.org/o/r/commit/{sha}",
        "http://localhost:8080/c/{sha}/",
        "https://h.example/q?id={sha}&x=%20y#top",
        "https://[::1]/{sha}",
    ],
)
def test_web_addresses_with_a_place_for_the_hash_are_taken(template):
    link = commit_link(template)
    assert link.before + "{sha}" + link.after == template


def test_no_template_is_no_link():
    assert commit_link("") is None
    assert commit_link("  ") is None


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("https://example.org/commit/", "must contain {sha} once"),
        ("https://example.org/{sha}/{sha}", "must contain {sha} once"),
        ("javascript:alert(1)//{sha}", "not an address on the web"),
        ("JaVaScRiPt:alert('{sha}')", "not an address on the web"),
        ("java\nscript:alert(1)//{sha}", "not an address on the web"),
        ("data:text/html,{sha}", "not an address on the web"),
        ("file:///etc/{sha}", "not an address on the web"),
        ("ftp://example.org/{sha}", "not an address on the web"),
        ("//example.org/{sha}", "not an address on the web"),
        ("/commit/{sha}", "not an address on the web"),
        ("https:///{sha}", "not an address on the web"),
        ("https://{sha}/x", "in its host"),
        ("https://example.org{sha}", "in its host"),
        ("https://user:secret@example.org/{sha}", "user name or password"),
        ("https://token@example.org/{sha}", "user name or password"),
        ("https://example.org/a b/{sha}", "characters that no web address has"),
        ('https://example.org/"onclick=x/{sha}', "characters that no web address has"),
        ("https://example.org/<b>/{sha}", "characters that no web address has"),
        ("https://example.org/\x00/{sha}", "characters that no web address has"),
        ("https://example.org:port/{sha}", "no web address"),
        ("https://[::1/{sha}", "no web address"),
    ],
)
def test_other_templates_are_refused_with_a_reason_and_without_a_password(template, problem):
    with pytest.raises(SettingsError, match=re.escape(problem)) as caught:
        commit_link(template)
    assert caught.value.hint
    assert "secret" not in str(caught.value)
    assert len(caught.value.problem.splitlines()) == 1


@pytest.fixture
def store(tmp_path):
    url = f"sqlite:///{tmp_path}/history.db"
    with open_store(url, root=tmp_path) as opened:
        for index in range(8):
            opened.record(small_run(index, value=0.9 if index < 4 else 0.8))
    return url


def test_the_command_writes_a_site_from_a_store(store, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["site", "--output", "public", "--store", store]) == 0
    assert "8 runs, 4 cases, 4 steps" in capsys.readouterr().out
    data = data_of(tmp_path / "public")
    assert data["link"] is None
    assert data["steps"]["run"] == [4] * 4
    assert data["steps"]["margins"] == [5] * 4


def test_the_command_takes_the_newest_runs_and_the_cases_that_match(
    store, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    arguments = ["--runs", "3", "--case", "vit-1/*", "--json"]
    assert main(["site", "--output", "public", "--store", store, *arguments]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["runs"], facts["cases"]) == (3, 1)
    assert data_of(tmp_path / "public")["runs"]["number"] == [6, 7, 8]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--commit-url", "javascript:alert(1)//{sha}"], "not an address on the web"),
        (["--runs", "0"], "--runs 0"),
        (["--case", "nothing/*"], "no recorded run has the case"),
    ],
)
def test_mistakes_end_with_a_message_and_write_nothing(
    arguments, problem, store, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["site", "--output", "public", "--store", store, *arguments]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "public").exists()


def test_a_store_that_does_not_exist_is_not_made(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["site", "--output", "public", "--store", "sqlite:///none.db"]) == 2
    assert "none.db" in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists()

"""The study's page in a real browser, opened as a file: tables, figures, claims, adviser."""

from __future__ import annotations

import csv
import io
import json
import shlex
from functools import cache

import pytest
from browsing import CONTRAST, change_fragment, chromium, watched
from scipy.special import ndtri, stdtrit
from scipy.stats import kstest
from study_documents import study_document

from clipq.study.advice import Criterion, advice_plain
from clipq.study.page_build import study_page
from clipq.web import page_script

DOCUMENT = study_document(models=2, configurations=32, columns=8)
ROWS = DOCUMENT["configurations"]
CRITERIA = [
    Criterion(c["key"], c["metric"], 1 if c["better"] == "higher" else -1)
    for c in DOCUMENT["columns"]
    if c["key"] in DOCUMENT["advice"]["criteria"]
]
READY = "html[data-ready]"


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def shown(browser, tmp_path_factory):
    """The one page of all these tests, and what went wrong on it, or online."""
    path = tmp_path_factory.mktemp("study") / "study.html"
    path.write_text(study_page(DOCUMENT), encoding="utf-8")
    page = browser.new_context(reduced_motion="reduce").new_page()
    page.set_default_timeout(20_000)
    wrong = watched(page, path.as_uri())
    page.goto(path.as_uri())
    page.wait_for_selector(READY, state="attached")
    yield page, wrong
    page.context.close()


@pytest.fixture
def page(shown):
    """The page with nothing chosen; at the end nothing may have gone wrong."""
    opened, wrong = shown
    if opened.evaluate("location.hash"):
        change_fragment(opened, "")
    opened.wait_for_selector(".advice h3, .advice .notice")
    yield opened
    assert wrong == []


def numbers(page):
    return page.locator("#numbers > tr:not(.detail-row)")


def test_the_table_shows_every_configuration_and_marks_what_is_sure_by_sign(page):
    assert page.locator("#amount").inner_text().startswith("64 configurations")
    while page.locator("#more-numbers").is_visible():
        page.locator("#more-numbers").click()
    assert numbers(page).count() == 64
    cells = page.evaluate(
        "[...document.querySelectorAll('#numbers [data-cell]')].map((cell) =>"
        " [cell.dataset.cell, cell.textContent])"
    )
    assert len(cells) == 64 * 7  # the first seven columns
    known = {f"{row['model']}/{row['quantizer']}": row["values"] for row in ROWS}
    for key, text in cells:
        row, column = key.split("|")
        value = known[row][column]
        assert ("surely better" in text) == value["better"]
        assert ("surely worse" in text) == value["worse"]


def test_filters_and_order_are_in_the_address_and_narrow_table_and_figures(page):
    page.locator("#table").get_by_label("method").select_option("lsq")
    page.locator("#table").get_by_role("button", name="ECE", exact=True).click()
    assert page.evaluate("location.hash") == "#method=lsq&sort=ece"
    assert numbers(page).count() == 8
    wanted = sorted((r for r in ROWS if r["method"] == "lsq"),
                    key=lambda r: r["values"]["ece"]["change"])  # fmt: skip
    assert numbers(page).locator("th code").all_inner_texts() == [r["quantizer"] for r in wanted]
    assert page.locator("#table [aria-sort]").inner_text().strip() == "ECE"
    assert page.locator("#figures figure").first.locator("path.mark").count() == 8


def test_a_number_opens_its_units_and_a_command_and_its_link_opens_it_again(page):
    row = next(r for r in ROWS if r["method"] == "lsq" and r["model"] == "vit-noisy")
    key = f"{row['model']}/{row['quantizer']}|ece"
    page.locator("#table").get_by_label("model").select_option("vit-noisy")
    button = page.locator(f'[data-cell="{key}"]')
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    detail = page.locator("#number-detail")
    assert detail.locator("tbody th code").all_inner_texts() == row["units"]
    told = detail.locator("tbody td").all_inner_texts()
    assert told[::2] == [str(seed) for seed in row["seeds"]]
    by_seed = row["values"]["ece"]["by_seed"]
    assert [float(value) for value in told[1::2]] == pytest.approx(by_seed, abs=1e-3)
    command = detail.locator(".commands code").inner_text()
    assert command.startswith('clipq sweep query plan.toml "SELECT seed, unit_id')
    assert all(unit[:12] in command for unit in row["units"])
    address = page.url
    page.keyboard.press("Escape")
    assert detail.count() == 0
    change_fragment(page, address.partition("#")[2])
    assert detail.locator("tbody th code").all_inner_texts() == row["units"]


def test_models_stand_side_by_side_for_one_metric(page):
    page.locator("#table").get_by_label("across").select_option("models")
    assert page.locator("#table thead th.number").all_inner_texts() == ["vit-clean", "vit-noisy"]
    page.locator("#table").get_by_label("metric", exact=True).select_option("relative-gap")
    first = numbers(page).first.locator("[data-cell]")
    keys = [f"{model}/rtn:w8a8@vision|relative-gap" for model in ("vit-clean", "vit-noisy")]
    assert [cell.get_attribute("data-cell") for cell in first.all()] == keys


def test_the_shown_table_is_saved_as_csv(page):
    page.locator("#table").get_by_label("kind").select_option("qat")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(io.StringIO(file.read())))
    known = {(r["model"], r["quantizer"]): r["values"] for r in ROWS if r["trained"]}
    assert len(rows) == len(known)
    for row in rows:
        value = known[row["model"], row["configuration"]]["ece"]
        for name in ("value", "change", "low", "high"):
            column = "ece" if name == "value" else f"ece {name}"
            assert float(row[column]) == pytest.approx(value[name], rel=1e-5)


def test_a_chart_is_walked_by_keys_told_in_words_and_opens_the_numbers(page):
    figure = page.locator("#figures figure").nth(1)
    assert "OOD AUROC" in figure.locator("figcaption").inner_text()
    picture = figure.locator("svg.plot[role=application]")
    picture.focus()
    page.keyboard.press("Home")
    least = min(ROWS, key=lambda row: row["values"]["ece"]["change"])
    told = figure.locator(".told").inner_text()
    assert told.startswith(f"{least['model']} / {least['quantizer']}")
    page.keyboard.press("Enter")
    key = f"{least['model']}/{least['quantizer']}|auroc-mcm"
    assert page.locator(f'[data-cell="{key}"][aria-expanded=true]').count() == 1


def test_claims_open_for_what_they_rest_on(page):
    answers = page.locator("#answers [data-claim]")
    assert answers.count() == 3 * 3 - 1  # C1 is not about one model
    page.locator('[data-claim="C3|vit-noisy"]').click()
    detail = page.locator("#claim-detail")
    assert "some quantizer raises OOD AUROC and ECE at once: reproduced" in detail.inner_text()
    detail.locator("summary").click()
    detail.locator("button.link").first.click()
    assert page.locator("#number-detail").count() == 1


@cache
def command_line(**margins):
    """Return what the command line says of the first model, by configuration."""
    own = [row for row in ROWS if row["model"] == "vit-clean"]
    said = advice_plain(own, CRITERIA, cost="weight-bits", margins=margins, draws=1000)
    said = said["models"]["vit-clean"]
    return [(own[row["configuration"]], row) for row in said["configurations"]]


def advised(page, margins):
    """Return what the page's script computes of the same."""
    options = [
        {
            "cost": row["costs"]["weight-bits"],
            "losses": [
                {**{k: row["values"][one.key][k] for k in ("sampling", "drawn", "seeds")},
                 "value": -one.sign * row["values"][one.key]["change"]}
                for one in CRITERIA
            ],
            "margins": [margins.get(one.key, row["values"][one.key]["margin"]) for one in CRITERIA],
        }
        for row, _ in command_line(**margins)
    ]  # fmt: skip
    script = page_script("study/advice.js").strip().removesuffix("})();")
    return page.evaluate(
        f"""(options) => {{
          const {{ advise, drawLosses, jointFront }} = {script}
            return {{ advise, drawLosses, jointFront }}; }})();
          const drawn = drawLosses(options.map((option) => option.losses));
          const joint = jointFront(options, drawn);
          const judged = advise(options, drawn);
          return judged.map((item, at) => ({{ ...item, option: null, joint: joint[at] }}));
        }}""",
        options,
    )


def test_quantiles_and_draws_of_the_page_are_the_normal_distributions_and_students(page):
    script = page_script("study/chances.js").strip().removesuffix("})();")
    tails, degrees = [0.025, 0.025 / 7, 0.3], [1, 2, 4, 9]
    quantiles, normal, student = page.evaluate(
        f"""([tails, degrees]) => {{
          const {{ quantileOf, randomNumbers }} = {script}
            return {{ quantileOf, randomNumbers }}; }})();
          const {{ normal, student }} = randomNumbers(7);
          return [
            tails.map((tail) => [Infinity, ...degrees].map((each) => quantileOf(tail, each))),
            Array.from({{ length: 4000 }}, normal),
            Array.from({{ length: 4000 }}, () => student(4)),
          ];
        }}""",
        [tails, degrees],
    )
    for tail, found in zip(tails, quantiles, strict=True):
        assert found == pytest.approx([ndtri(tail), *stdtrit(degrees, tail)], rel=1e-9)
    assert kstest(normal, "norm").pvalue > 0.01
    assert kstest(student, "t", (4,)).pvalue > 0.01
    assert kstest(student, "norm").pvalue < 0.01


@pytest.mark.parametrize("margins", [{}, {"ece": 0.02, "relative-gap": 0.08}])
def test_the_adviser_says_what_the_command_line_says(page, margins):
    expected = [row for _, row in command_line(**margins)]
    found = advised(page, margins)
    assert len(found) == len(expected) == 28
    assert len({row["answer"] for row in expected}) > 2
    sure = {"surely", "surely not"}
    for ours, theirs in zip(found, expected, strict=True):
        if {ours["answer"], theirs["answer"]} & sure:
            assert ours["answer"] == theirs["answer"]
        assert [CRITERIA[place].key for place in ours["over"]] == theirs["over"]
        assert [CRITERIA[place].key for place in ours["open"]] == theirs["open"]
        # Shares of 1,000 draws: 3.6 standard errors of their difference.
        assert ours["meets"] == pytest.approx(theirs["meets"], abs=0.08)
        assert ours["front"] == pytest.approx(theirs["front"], abs=0.08)
        assert ours["joint"] == pytest.approx(theirs["joint"], abs=0.08)
        for place, one in enumerate(CRITERIA):
            assert ours["fronts"][place] == pytest.approx(theirs["fronts"][one.key], abs=0.08)


def test_the_adviser_recommends_the_cheapest_that_surely_keeps_every_margin(page):
    sure = [row for row, said in command_line() if said["answer"] == "surely"]
    least = min(row["costs"]["weight-bits"] for row in sure)
    said = page.locator(".advice .notice").inner_text()
    assert said.startswith("Take ")
    taken = page.locator(".advice .notice code").first.inner_text()
    assert taken in {r["quantizer"] for r in sure if r["costs"]["weight-bits"] == least}
    assert f"{len(sure)} of 28 surely keep all" in said


def test_where_nothing_keeps_the_margins_the_adviser_says_what_is_in_the_way(page):
    page.get_by_label("margin of ECE", exact=True).fill("0.0002")
    notice = page.locator(".advice .notice")
    assert "Nothing surely keeps all of these margins" in notice.inner_text()
    assert "ECE is not decided" in notice.inner_text()
    assert "tune the logit scale" in notice.inner_text()
    assert page.evaluate("decodeURIComponent(location.hash)") == "#margins=ece=0.0002"
    page.locator(".limits .margin", has_text="ECE").get_by_role("checkbox").uncheck()
    assert page.locator(".advice .notice").inner_text().startswith("Take ")
    page.get_by_label("at most", exact=False).fill("1")
    assert "costs that little" in page.locator(".advice .notice").inner_text()
    page.get_by_role("button", name="The project's margins").click()


@pytest.mark.parametrize(
    ("change", "case"),
    [
        ({}, "lsq:w8a8@vision"),
        ({"seeds": [3, 4]}, "lsq:w8a8,seed=3@vision"),
        ({"seeds": [3, 4], "quantizer": "lsq:w8a8+logit-scale"}, "lsq:w8a8,seed=3+logit-scale"),
        ({"seeds": [3, 4], "calibration_samples": 64,
          "quantizer": "rtn:w8a8@vision (calibration: 64 samples)"}, "rtn:w8a8@vision"),
    ],
)  # fmt: skip
def test_what_is_to_blame_is_a_case_of_the_gate(browser, tmp_path, change, case):
    document = study_document(models=1, configurations=8)
    row = next(c for c in document["configurations"] if c["quantizer"] == "lsq:w8a8@vision")
    document["configurations"] = [row | {"id": "one"} | change]
    document["claims"] = []
    path = tmp_path / "study.html"
    path.write_text(study_page(document), encoding="utf-8")
    page = browser.new_page()
    page.goto(f"{path.as_uri()}#margins=ece%3D0.0000001")
    command = page.locator(".advice .commands code").inner_text()
    assert shlex.split(command) == ["clipq", "blame", f"vit-clean/{case}/in-distribution.ece"]
    page.close()


def test_the_adviser_asks_for_no_logit_scale_where_none_would_help(browser, tmp_path):
    """A scale moves no temperature-scaled ECE."""
    columns = [
        {**column, "metric": "ts-ece"} if column["key"] == "ece" else column
        for column in DOCUMENT["columns"]
    ]
    path = tmp_path / "study.html"
    path.write_text(study_page({**DOCUMENT, "columns": columns}), encoding="utf-8")
    page = browser.new_page()
    page.goto(f"{path.as_uri()}#margins=ece%3D0.0002")
    said = page.locator(".advice .notice").inner_text()
    assert "ECE is not decided" in said
    assert "logit scale" not in said
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_and_mark_stands_out_from_its_background(page, scheme):
    page.emulate_media(color_scheme=scheme)
    change_fragment(page, "cell=vit-clean%2Flsq%3Aw8a8%40vision%7Cece&claim=C3%7Cvit-noisy")
    found = page.evaluate(CONTRAST)
    assert len(found["texts"]) > 40
    assert {name: ratio for name, ratio in found["texts"] if ratio < 4.5} == {}
    assert {name: ratio for name, ratio in found["marks"] if ratio < 3} == {}


def test_pictures_fields_and_tables_have_names(page):
    nameless = page.evaluate(
        """() => {
          const named = {
            svg: (node) => node.closest("[aria-hidden=true]")
              || (["img", "application"].includes(node.getAttribute("role")) && node.ariaLabel),
            "input, select": (node) => node.ariaLabel || node.labels.length,
            table: (node) => node.caption && node.caption.textContent.trim(),
            button: (node) => node.textContent.trim(),
          };
          return Object.entries(named).flatMap(([tags, isNamed]) =>
            [...document.querySelectorAll(tags)].filter((node) => !isNamed(node))
              .map((node) => node.outerHTML.slice(0, 200)));
        }"""
    )
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))


def test_a_telephone_scrolls_down_and_not_sideways(page):
    size = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.set_viewport_size(size)


def test_markup_in_names_is_inert(browser, tmp_path):
    text = json.dumps(study_document(models=1, configurations=8))
    for at, old in enumerate(("vit-clean", "rtn:w8a8@vision", "ECE", "C3", "plan.toml")):
        hostile = f"</script><img src=x onerror=alert({at})>\\u202e'&$ {old}"
        text = text.replace(old, hostile)
    path = tmp_path / "study.html"
    path.write_text(study_page(json.loads(text)), encoding="utf-8")
    page = browser.new_page()
    wrong = watched(page, path.as_uri())
    page.goto(path.as_uri())
    page.wait_for_selector(READY, state="attached")
    page.locator("#numbers [data-cell]").nth(1).click()
    assert page.locator("#number-detail").count() == 1
    assert page.locator("img, script:not([id])").count() == 1  # the page's own script
    change_fragment(page, "margins=ece%3D0.0000001")  # nothing keeps it: it says what to blame
    command = page.locator(".advice .commands code")
    assert shlex.split(command.inner_text())[:2] == ["clipq", "blame"]
    assert len(shlex.split(command.inner_text())) == 3
    assert wrong == []
    page.close()

"""The trend site in a real browser, opened as files: it loads, filters, links and is inert."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import quote

import numpy as np
import pytest
from browsing import change_fragment, chromium
from trend_site import synthetic_table

from clipq.history.site import commit_link, write_site
from clipq.history.steps import find_steps
from clipq.verdicts import POLICIES, Verdict

VERDICTS = [verdict.value for verdict in Verdict]
PAYLOADS = [
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    '"><img src=x onerror=window.pwned=1>',
    "'><svg onload=window.pwned=1>",
    "<svg><script>window.pwned=1</script></svg>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'>",
    "javascript:window.pwned=1",
    '" onmouseover="window.pwned=1',
    "' autofocus onfocus='window.pwned=1",
    "<!--<script>window.pwned=1//-->",
    "]]><script>window.pwned=1</script>",
    "${window.pwned=1}",
    "{{constructor.constructor('window.pwned=1')()}}",
    "`+(window.pwned=1)+`",
    "\\u003cscript\\u003ewindow.pwned=1\\u003c/script\\u003e",
    "&lt;script&gt;window.pwned=1&lt;/script&gt;",
    "<style>*{display:none}</style>",
    "<link rel=stylesheet href=http://192.0.2.1/x.css>",
    "<meta http-equiv=refresh content='0;url=http://192.0.2.1/'>",
    "<base href=http://192.0.2.1/>",
    "<a href=javascript:window.pwned=1>x</a>",
    "<form action=http://192.0.2.1/><button autofocus>x",
    "\u2028window.pwned=1\u2029",
    "\u202egnp.exe",
    "__proto__",
    "constructor",
    "%3Cscript%3Ewindow.pwned=1%3C/script%3E%",
    "?find=x&verdict=fail#/runs",
    "\x00\x01\x1b[31m",
    "x" * 300,
]


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; skipped by name on a user's machine, never in CI."""
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def table():
    """Sixty runs; from the 46th and from the 58th on, some cases fail by far."""
    drawn = synthetic_table(60, 200, seed=11)
    loss, verdicts = drawn.loss.copy(), drawn.verdicts.copy()
    for first, start in ((4, 45), (11, 57)):
        loss[first::20, start:] += 0.1
        verdicts[first::20, start:] = VERDICTS.index("fail")
    sign = np.array([-1.0 if direction == "higher" else 1.0 for direction in drawn.directions])
    observed = drawn.baseline + sign[:, None] * loss
    return replace(drawn, loss=loss, verdicts=verdicts, observed=observed)


@pytest.fixture(scope="module")
def site(table, tmp_path_factory):
    link = commit_link("https://example.org/team/commit/{sha}?from=trends")
    return write_site(table, tmp_path_factory.mktemp("site"), link=link).index


@pytest.fixture
def visit(browser):
    """Opens a page of a site; at the end nothing may have gone wrong, or online."""
    contexts, wrong = [], []

    def opened(index, address="/", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        root = index if isinstance(index, str) else index.parent.as_uri() + "/"
        page.on("console", lambda message: wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (wrong.append("a dialog opened"), dialog.dismiss()))
        page.on(
            "request",
            lambda request: request.url.startswith(root) or wrong.append(f"request: {request.url}"),
        )
        page.goto(f"{root}index.html#{address}")
        if options.get("java_script_enabled", True):
            page.wait_for_selector("main h1")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def rows(page):
    return page.locator("main table.plain tbody tr")


def number(text):
    """Read a number as pages write it."""
    dash, times, minus = "\u2013", "\u00d7", "\u2212"
    return float("nan") if text == dash else float(text.rstrip(times).replace(minus, "-"))


def first_cells(page):
    return page.locator("main table.plain tbody th").all_inner_texts()


def test_the_overview_tells_the_latest_run_and_every_pair(visit, site, table):
    page = visit(site)
    latest = table.runs[-1]
    state = "passed" if latest.passed else "failed"
    assert page.inner_text("h1") == f"Latest run {state}"
    assert f"run {latest.number}" in page.inner_text(".banner")
    assert f"{len(table.runs)} runs since" in page.inner_text(".banner")
    assert page.locator(".heat a.cell").count() == 50
    assert page.locator(".heat a.cell svg.sparkline").count() == 50
    page.locator(".heat a.cell").first.click()
    page.wait_for_selector(".sparkline .end")
    assert rows(page).count() == 4


def test_regressions_are_listed_newest_first(visit, site, table):
    page = visit(site)
    blocking = [VERDICTS.index(name) for name in VERDICTS if POLICIES["ci"].blocks(Verdict(name))]
    count = int(np.isin(table.verdicts[:, -1], blocking).sum())
    section = page.locator("section[aria-labelledby=regressions]")
    assert count >= 20
    assert section.locator("tbody tr").count() == min(10, count)
    shown = section.locator("tbody a.run").all_inner_texts()
    numbers = [int(text.removeprefix("run ")) for text in shown]
    assert numbers == sorted(numbers, reverse=True)


def test_a_deep_link_to_a_case_shows_its_chart_steps_and_runs(visit, site, table):
    steps, _ = find_steps(table)
    case = next(step.case for step in steps if step.confirmed)
    mine = [step for step in steps if step.case == case]
    name = table.cases[case]
    page = visit(site, f"/case/{name}")
    page.wait_for_selector(".place svg.chart")
    assert name.rpartition("/")[2] in page.inner_text("h1")
    assert page.title().startswith(name)
    assert page.locator(".chart .step").count() == len(mine)
    text = page.inner_text("table:has(caption:text('Steps of'))")
    assert all(f"run {table.runs[step.run].number}" in text for step in mine)
    runs = page.locator("table:has(caption:text('Runs of')) tbody tr")
    present = int((table.verdicts[case] >= 0).sum())
    assert runs.count() == min(25, present)
    loss = runs.first.locator("td").nth(3).inner_text().replace("\u2212", "-")
    assert float(loss) == pytest.approx(table.loss[case, -1], abs=6e-5)


def test_every_value_in_the_table_of_runs_is_the_stored_one(visit, site, table):
    page = visit(site, f"/case/{table.cases[7]}")
    page.wait_for_selector(".place svg.chart")
    for _ in range(2):
        page.locator(".more button").last.click()
    cells = page.locator("table:has(caption:text('Runs of')) tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].slice(3, 8).map(cell => cell.innerText))"
    )
    assert len(cells) == 60
    for column, (verdict, *shown) in zip(range(59, -1, -1), cells, strict=True):
        assert verdict.split()[-1] == VERDICTS[table.verdicts[7, column]]
        numbers = [number(text) for text in shown]
        stored = [
            getattr(table, name)[7, column] for name in ("loss", "error", "observed", "baseline")
        ]
        np.testing.assert_allclose(numbers, stored, rtol=6e-4, atol=2.1e-5)


def test_the_chart_is_read_by_keyboard(visit, site, table):
    steps, _ = find_steps(table)
    case = next(step.case for step in steps if step.confirmed)
    mine = sorted(step.run for step in steps if step.case == case)
    page = visit(site, f"/case/{table.cases[case]}")
    page.locator(".place svg.chart").focus()
    assert page.inner_text(".readout .run") == f"run {table.runs[-1].number}"
    page.keyboard.press("ArrowLeft")
    assert page.inner_text(".readout .run") == f"run {table.runs[-2].number}"
    page.keyboard.press("Home")
    assert page.inner_text(".readout .run") == "run 1"
    page.keyboard.press("PageDown")
    assert page.inner_text(".readout .run") == f"run {table.runs[mine[0]].number}"
    assert f"run {table.runs[mine[0]].number}" in page.inner_text("#announce")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Run')")
    assert page.url.endswith(f"#/runs/{table.runs[mine[0]].number}")


def test_pointing_at_a_run_reads_it_out(visit, site, table):
    page = visit(site, f"/case/{table.cases[0]}")
    box = page.locator(".place svg.chart").bounding_box()
    page.mouse.move(box["x"] + 66, box["y"] + 100)
    assert page.inner_text(".readout .run") == "run 1"


def test_the_filter_of_cases_narrows_and_lives_in_the_address(visit, site, table):
    page = visit(site, "/cases")
    assert rows(page).count() == 100
    page.keyboard.press("/")
    page.keyboard.type("siglip rtn:w8a8")
    wanted = [case for case in table.cases if case.startswith("siglip/rtn:w8a8/")]
    page.locator(".amount", has_text=f"{len(wanted)} of 200 cases").wait_for()
    assert rows(page).count() == len(wanted)
    page.reload()
    page.wait_for_selector("main h1")
    assert rows(page).count() == len(wanted)
    page.fill("#find", "nothing-like-this")
    page.wait_for_selector(".empty")
    assert rows(page).count() == 0


def test_the_verdict_filter_shows_that_verdict_alone(visit, site):
    page = visit(site, "/cases")
    page.select_option("label:has-text('Verdict') select", "waived")
    words = page.locator("main tbody .verdict .word").all_inner_texts()
    assert words
    assert set(words) == {"waived"}


def test_a_suspect_has_its_own_sign_colour_and_shape_and_ranks_before_failures(
    visit, table, tmp_path
):
    verdicts = table.verdicts.copy()
    verdicts[:4, 50:] = VERDICTS.index("suspect")
    verdicts[4:8, 50:] = VERDICTS.index("inconclusive")
    index = write_site(replace(table, verdicts=verdicts), tmp_path / "site").index
    page = visit(index, "/cases?verdict=suspect")
    labels = page.locator("main tbody .verdict")
    assert set(labels.locator(".word").all_inner_texts()) == {"suspect"}
    assert set(labels.locator(".symbol").all_inner_texts()) == {"\N{BLACK DIAMOND}"}
    colour = labels.first.evaluate("node => getComputedStyle(node).color")
    change_fragment(page, "/cases?verdict=inconclusive")
    other = page.locator("main tbody .verdict").first
    assert other.evaluate("node => getComputedStyle(node).color") != colour
    change_fragment(page, "/cases?sort=-verdict")
    words = page.locator("main tbody .verdict .word").all_inner_texts()
    last_fail = max(at for at, word in enumerate(words) if word == "fail")
    assert last_fail < words.index("suspect") < words.index("inconclusive")
    change_fragment(page, f"/case/{table.cases[0]}")
    page.wait_for_selector(".place svg.chart .marker.v-suspect")
    assert "suspect" in page.inner_text(".toolbar .legend")
    shapes = page.locator(".toolbar .legend .marker").evaluate_all(
        "all => all.map((node) => node.outerHTML)"
    )
    assert len(set(shapes)) == len(shapes) > 1


def test_columns_sort_by_mouse_and_keyboard_and_say_so(visit, site):
    page = visit(site, "/cases")
    page.click("[data-column=case] button")
    names = page.locator("main tbody a.name").evaluate_all(
        "links => links.map(link => decodeURIComponent(link.getAttribute('href')))"
    )
    assert names == sorted(names)
    assert page.get_attribute("[data-column=case]", "aria-sort") == "ascending"
    page.locator("[data-column=size] button").focus()
    page.keyboard.press("Enter")
    sizes = page.locator("main tbody .times").all_inner_texts()
    numbers = [number(size) for size in sizes]
    assert numbers == sorted(numbers, reverse=True)


def test_a_third_click_on_a_heading_sorts_no_more_and_the_focus_stays_on_it(visit, site):
    page = visit(site, "/cases")
    before = first_cells(page)
    heading = page.locator("[data-column=case]")
    heading.get_by_role("button").focus()
    for expected in ("ascending", "descending", None):
        page.keyboard.press("Enter")
        assert heading.get_attribute("aria-sort") == expected
        assert heading.locator(":focus").count() == 1
    assert first_cells(page) == before


def test_keys_search_leave_switch_the_colours_and_explain_themselves(visit, site):
    page = visit(site, "/runs", color_scheme="light")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "find"
    page.keyboard.type("t?")
    page.keyboard.press("Escape")
    assert page.input_value("#find") == ""
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("?")
    assert "light or dark" in page.inner_text("#help")
    page.keyboard.press("Escape")
    assert page.locator("#help").is_hidden()


def test_a_metric_without_fp32_is_held_to_its_limit_as_in_the_report(visit, table, tmp_path):
    # The loss counts from the limit, which may be below zero: -55 of it is far inside.
    loss, margins, baseline = table.loss.copy(), table.margins.copy(), table.baseline.copy()
    loss[0], margins[0], baseline[0] = -55.0, -60.0, np.nan
    floor = replace(table, loss=loss, margins=margins, baseline=baseline)
    page = visit(write_site(floor, tmp_path).index, f"/case/{table.cases[0]}")
    page.wait_for_selector(".place svg.chart")
    facts = page.inner_text(".facts").replace("\N{MULTIPLICATION SIGN}", "x").split("\n")
    assert facts[facts.index("loss") + 1].endswith("0.08x limit")
    assert facts[facts.index("limit") + 1] == "\N{MINUS SIGN}60"
    assert page.locator(".chart line.zero").count() == 0


def test_steps_are_listed_newest_first_and_filtered(visit, site, table):
    steps, _ = find_steps(table)
    page = visit(site, "/steps")
    assert page.inner_text(".amount").startswith(f"{len(steps)} steps")
    numbers = [int(re.match(r"run (\d+)", text)[1]) for text in first_cells(page)]
    assert numbers == sorted(numbers, reverse=True)
    page.select_option("label:has-text('Direction') select", "worse")
    page.select_option("label:has-text('Size') select", "1")
    worse = sum(step.margins >= 1 for step in steps)
    assert page.inner_text(".amount").startswith(f"{worse} step")
    assert page.locator("main tbody .move.better").count() == 0


def test_commits_are_links_that_leak_no_address(visit, site, table):
    page = visit(site, "/runs")
    link = page.locator("a.commit").first
    sha = table.runs[-1].commit["sha"]
    assert link.get_attribute("href") == f"https://example.org/team/commit/{sha}?from=trends"
    assert "noreferrer" in link.get_attribute("rel")


def test_hashes_without_a_template_and_odd_hashes_are_plain(visit, table, tmp_path):
    plain = write_site(table, tmp_path / "plain").index
    assert visit(plain, "/runs").locator("a.commit").count() == 0
    odd = tuple(replace(r, commit=dict(r.commit, sha="javascript:alert(1)")) for r in table.runs)
    link = commit_link("https://example.org/{sha}")
    index = write_site(replace(table, runs=odd), tmp_path / "odd", link=link).index
    page = visit(index, "/runs")
    assert page.locator("a.commit").count() == 0
    assert page.locator("[href^='javascript']").count() == 0


def test_a_run_tells_what_changed_in_its_environment(visit, site, table, tmp_path):
    runs = list(table.runs)
    runs[30] = replace(runs[30], environment={"torch": "9.9", "device": "cpu"})
    index = write_site(replace(table, runs=tuple(runs)), tmp_path).index
    page = visit(index, "/runs/31")
    assert page.locator(".tag", has_text="was 2.14.0").count() == 1
    page.click("a[rel=next]")
    page.wait_for_selector("h1:has-text('Run 32')")
    assert page.locator(".tag", has_text="was 9.9").count() == 1


def hostile(table):
    """Put a payload wherever a text comes from outside."""
    cases = []
    for number, case in enumerate(table.cases):
        payload = PAYLOADS[number % len(PAYLOADS)]
        model, quantizer, key = case.split("/")
        parts = [model, quantizer, key]
        parts[number // len(PAYLOADS) % 3] += payload
        cases.append("/".join(parts))
    runs = tuple(
        replace(
            run,
            id=PAYLOADS[at % len(PAYLOADS)] + str(at),
            started=PAYLOADS[(at + 3) % len(PAYLOADS)],
            commit={
                "sha": PAYLOADS[(at + 1) % len(PAYLOADS)],
                "subject": PAYLOADS[at % len(PAYLOADS)],
                "branch": PAYLOADS[(at + 2) % len(PAYLOADS)],
                "dirty": True,
            },
            environment={payload: payload for payload in PAYLOADS},
        )
        for at, run in enumerate(table.runs)
    )
    units = tuple(PAYLOADS[at % len(PAYLOADS)] for at in range(len(cases)))
    return replace(table, cases=tuple(cases), runs=runs, units=units)


def elements_that_should_not_be(page):
    return page.evaluate(
        """() => [...document.querySelectorAll(
            'img, iframe, object, embed, form, base, style, a[href^="javascript" i], '
            + 'script:not([src^="data/"]):not([src^="assets/"]), main meta, main link, '
            + '[onerror], [onload], [onfocus], [onmouseover]')].map(node => node.outerHTML)"""
    )


def test_markup_in_names_commits_branches_and_environments_is_inert(visit, table, tmp_path):
    assert len(PAYLOADS) >= 20
    shown = hostile(table)
    index = write_site(shown, tmp_path, link=commit_link("https://example.org/{sha}")).index
    page = visit(index)
    hrefs = page.locator(".heat a.cell").evaluate_all("a => a.map(x => x.getAttribute('href'))")
    addresses = ["#/", "#/cases", "#/steps", "#/runs", "#/runs/1", "#/runs/40", *hrefs]
    for address in addresses:
        change_fragment(page, address)
        assert elements_that_should_not_be(page) == [], address
        assert "Not found" not in page.inner_text("h1"), address
    assert page.evaluate("window.pwned === undefined && ({}).pwned === undefined")
    assert page.evaluate("Object.keys(window).filter(k => k.startsWith('clipq'))") == ["clipqSite"]


def test_hostile_texts_are_shown_as_they_are_and_their_pages_open(visit, table, tmp_path):
    shown = hostile(table)
    index = write_site(shown, tmp_path).index
    page = visit(index, "/runs")
    subjects = page.locator("main .subject").evaluate_all("all => all.map(x => x.textContent)")
    assert subjects[::-1] == [run.commit["subject"][:200] for run in shown.runs]
    for number in (*range(len(PAYLOADS)), 40, 75, 100):
        parts = shown.cases[number].split("/")
        change_fragment(page, "#/case/" + "/".join(quote(part, safe="") for part in parts))
        page.wait_for_selector(".place svg.chart")
        assert page.locator("h1").evaluate("h => h.firstChild.textContent") == parts[-1]
        assert elements_that_should_not_be(page) == []
    assert page.evaluate("window.pwned === undefined")


@pytest.mark.parametrize(
    "address",
    [
        "/nowhere", "/case/none/of/these", "/runs/999", "/pair/a/b", "/case/%E0%A4%A", "%",
        "/case/<img src=x onerror=window.pwned=1>", "/steps?sort=nonsense&size=x&kind=y",
        "/cases?verdict=__proto__&sort=constructor", "/runs/__proto__",
    ],
)  # fmt: skip
def test_addresses_that_lead_nowhere_say_so_and_do_nothing(address, visit, site):
    page = visit(site, address)
    assert elements_that_should_not_be(page) == []
    assert page.evaluate("window.pwned === undefined")


def test_a_missing_data_file_is_said(browser, table, tmp_path):
    index = write_site(table, tmp_path).index
    for path in tmp_path.glob("data/pair-*.js"):
        path.unlink()
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{index.as_uri()}#/case/{table.cases[0]}")
    page.wait_for_selector(".notice.bad")
    assert "could not be loaded" in page.inner_text(".notice.bad")
    context.close()


def test_the_same_files_work_from_a_web_server(visit, site, table):
    handler = partial(Quiet, directory=str(site.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page = visit(f"http://127.0.0.1:{server.server_port}/", f"/case/{table.cases[0]}")
        page.wait_for_selector(".place svg.chart")
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def luminance(colour):
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", ["/", "/cases", "/steps", "/runs", "/runs/5", "CASE"])
def test_every_text_has_the_contrast_of_wcag_aa(scheme, address, visit, site, table):
    address = f"/case/{table.cases[0]}" if address == "CASE" else address
    page = visit(site, address, color_scheme=scheme)
    if "case/" in address:
        page.wait_for_selector(".place svg.chart")
    found = page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter(node =>
            [...node.childNodes].some(c => c.nodeType === 3 && c.textContent.trim())
            && node.getClientRects().length && !node.closest('.unseen, svg, noscript, .skip'))
          .map(node => {
            let back = node, fill;
            do { fill = getComputedStyle(back).backgroundColor; back = back.parentElement; }
            while (back && /, 0\\)$|transparent/.test(fill));
            return [node.textContent.slice(0, 40), getComputedStyle(node).color, fill];
          })"""
    )
    assert len(found) > 10
    for text, colour, fill in found:
        light, dark = sorted((luminance(colour), luminance(fill)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, colour, fill)


@pytest.mark.parametrize("address", ["/", "/cases", "/steps", "/runs", "/runs/5", "CASE"])
def test_what_is_used_has_a_name_and_no_page_is_wider_than_a_phone(address, visit, site, table):
    address = f"/case/{table.cases[0]}" if address == "CASE" else address
    page = visit(site, address, viewport={"width": 390, "height": 844})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    nameless = page.evaluate(
        """() => [...document.querySelectorAll(
            'a, button, select, input, [role=img], [tabindex="0"]')]
          .filter(node => !(node.getAttribute('aria-label') || node.textContent.trim()
            || node.labels?.[0]?.textContent.trim())).map(node => node.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    assert page.locator("h1").count() == 1
    identifiers = page.locator("[id]").evaluate_all("all => all.map(x => x.id)")
    assert len(identifiers) == len(set(identifiers))


def test_the_reader_may_choose_dark_and_it_is_kept(visit, site):
    page = visit(site, color_scheme="light")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    after = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert luminance(after) < 0.1 < luminance(before)
    page.reload()
    page.wait_for_selector("main h1")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == after


def test_on_paper_there_are_no_controls(visit, site, table):
    page = visit(site, f"/case/{table.cases[0]}")
    page.wait_for_selector(".place svg.chart")
    page.emulate_media(media="print")
    assert page.locator(".bar").is_hidden()
    assert page.locator(".choice").is_hidden()
    assert page.locator(".place svg.chart").is_visible()


def test_without_scripts_the_outcome_is_readable(visit, site, table):
    page = visit(site, java_script_enabled=False)
    assert f"Run {table.runs[-1].number} of" in page.inner_text("main")

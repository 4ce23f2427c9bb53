"""The site is built without a warning, and reading it fetches nothing from another host."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
_FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class _Fetches(HTMLParser):
    """Collect what a browser fetches of itself to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in ("canonical", "prev", "next"):
            return
        value = given.get(_FETCHED.get(tag, ""))
        if value:
            self.urls.append(value)


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("index.html", "Read the report"),
        ("artifacts/index.html", "Gate what ships"),
        ("tutorial/quantizer.html", "register"),
        ("ci.html", "clipq gate --policy"),
        ("python.html", "clipq.evaluate"),
        ("reference/api.html", "calibration_images"),
        ("reference/cases.html", "NOTHING_ESTIMATED"),
        ("reference/cli.html", "clipq baseline update"),
        ("reference/data.html", "probe_from_images"),
        ("reference/evaluation.html", "Resampler"),
        ("reference/exports.html", "Manifest"),
        ("reference/metric-functions.html", "classwise_error"),
        ("reference/models.html", "model_in_memory"),
        ("reference/runtimes.html", "TowerFacts"),
        ("reference/settings.html", "ArtifactSettings"),
        ("reference/settings.html", "StatisticsSettings"),
        ("reference/stats.html", "score_interval"),
        ("reference/metrics.html", "15 equal-width bins"),
        ("reference/quantizers.html", "smoothquant"),
        ("reference/records.html", "RunRecord"),
        ("reference/testing.html", "check_quantizer"),
        ("reference/quant.html", "QuantizerSpec"),
        ("source/CHANGELOG.html", "Changelog"),
        ("samples/report.html", "vit-clean"),
        ("samples/trends/index.html", "60 runs, "),
        ("samples/report.md.txt", "vit-clean"),
    ],
)
def test_a_page_is_there_and_says_what_it_is_for(site: Path, page: str, text: str) -> None:
    assert text in (site / page).read_text()


def test_the_search_index_holds_pages_and_reference(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    places = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {"index.html", "tutorial/data.html", "reference/cli.html", "settings.html"} <= places


def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    pages = sorted(site.glob("**/*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text()
        reader = _Fetches()
        reader.feed(text)
        away = [url for url in reader.urls if re.match(r"(https?:)?//", url)]
        away += re.findall(r"url\(['\"]?(?:https?:)?//[^)]*\)|@import[^;]*//[^;]*;", text)
        assert not away, (page.relative_to(site), away)


def test_no_style_sheet_fetches_anything_from_another_host(site: Path) -> None:
    sheets = sorted(site.glob("**/*.css"))
    assert sheets
    for sheet in sheets:
        assert not re.findall(r"url\(['\"]?(?:https?:)?//|@import", sheet.read_text()), sheet

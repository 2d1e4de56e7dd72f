"""The page in a real browser, where there is one."""

import os
import shutil

import pytest

from expander_sae.dashboard.page import write_page
from tests.dashboard.conftest import DEAD, N
from tests.dashboard.test_page import HOSTILE, hostile

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-gpu", "--disable-sync"]

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="found no Chromium on the PATH"),
    pytest.mark.xdist_group("dashboard"),
]


@pytest.fixture(scope="module")
def browser():
    # Chromium's sandbox does not start as root.
    flags = [*QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield started
        started.close()


@pytest.fixture(scope="module")
def file(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(hostile(data), path)
    return path.as_uri()


@pytest.fixture(params=[(1280, 900), (375, 812)], ids=["desktop", "phone"])
def page(browser, file, request):
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True)
    opened = context.new_page()
    said = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", lambda dialog: said.append(dialog.message))
    opened.goto(file)
    yield opened
    assert said == []
    assert opened.evaluate("window.hacked") is None
    context.close()


def numbers(page):
    return [int(text) for text in page.locator("#rows .number").all_inner_texts()]


def assert_it_fits(page):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_list_is_sorted_filtered_and_searched(page):
    assert sorted(numbers(page)) == list(range(N))
    page.select_option("#sort", "number")
    assert numbers(page) == list(range(N))
    page.select_option("#show", "dead")
    assert DEAD in numbers(page) and page.locator("#rows .dead").count() == len(numbers(page))
    page.select_option("#show", "all")
    page.fill("#search", str(DEAD))
    found = numbers(page)
    assert DEAD in found and len(found) < N
    assert_it_fits(page)


def test_hostile_tokens_are_found_and_shown_as_text(page):
    page.fill("#search", "<script>")
    assert 0 < len(numbers(page)) < N
    page.locator("#rows a").first.click()
    shown = page.locator("#detail").inner_text()
    assert HOSTILE[0] in shown
    assert page.locator("#detail script, #detail img").count() == 0
    assert page.locator("h1").inner_text() == HOSTILE[1]
    assert_it_fits(page)


def test_a_feature_opens_with_all_that_is_known(page):
    page.fill("#search", "3")
    page.locator("#rows a", has_text="3").first.click()
    for heading in ("Top activating contexts", "Decoder column", "Logit effects", "Encoder against OMP"):
        assert page.get_by_role("heading", name=heading).is_visible()
    assert page.locator(".context .hit").count() > 0
    assert page.locator(".columns .bar").count() == 5
    assert_it_fits(page)
    page.go_back()
    assert page.get_by_role("heading", name="This run").is_visible()


def test_a_dead_feature_says_so(page):
    page.evaluate(f"location.hash = '{DEAD}'")
    page.get_by_role("heading", name=f"Feature {DEAD}").wait_for()
    assert "never fires" in page.locator("#detail").inner_text()

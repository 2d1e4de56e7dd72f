"""The page in a real browser, where there is one: no complaint, every picture, no sideways scrolling."""

import os
import shutil

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="found no Chromium on the PATH"),
    pytest.mark.xdist_group("browser"),
]


@pytest.fixture(scope="module")
def browser():
    # Chromium's sandbox does not start as root.
    flags = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield started
        started.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (375, 812)], ids=["desktop", "phone"])
def test_it_opens_offline_and_fits(browser, page, width, height, scheme):
    context = browser.new_context(
        viewport={"width": width, "height": height}, offline=True, color_scheme=scheme
    )
    said: list[str] = []
    opened = context.new_page()
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda asked: said.append(asked.url) if asked.url.startswith("http") else None)
    opened.goto(page.as_uri())
    # Everything that is folded away counts too.
    opened.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    opened.wait_for_function("[...document.images].every(one => one.complete)")
    assert opened.evaluate("document.images.length") > 5
    assert opened.evaluate("[...document.images].filter(one => one.naturalWidth === 0).length") == 0
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    sizes = "[...document.querySelectorAll('body *')].map(one => parseFloat(getComputedStyle(one).fontSize))"
    assert min(opened.evaluate(sizes)) >= 12
    assert opened.evaluate("window.hacked") is None
    assert said == []
    context.close()


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_the_first_screen_is_an_answer(browser, page, width, height):
    opened = browser.new_page(viewport={"width": width, "height": height})
    opened.goto(page.as_uri())
    # Of the length that those of the default run have; a made-up study's are shorter.
    long = "one.firstChild.textContent = 'For fidelity, take one of this size and another. '.repeat(6)"
    opened.evaluate(f"document.querySelectorAll('.answer li').forEach(one => {{ {long} }})")
    bottoms = "[...document.querySelectorAll('.answer li')].map(one => one.getBoundingClientRect().bottom)"
    ends = opened.evaluate(bottoms)
    assert len(ends) == 3 and ends[-1] <= height
    top = "document.querySelector('#answer figure').getBoundingClientRect().top"
    assert width < 1000 or opened.evaluate(top) < height
    opened.close()


def test_claims_are_narrowed_to_a_verdict(browser, page):
    opened = browser.new_page()
    opened.goto(page.as_uri())
    seen = (
        "[...document.querySelectorAll('.claim')].filter(one => one.offsetHeight).map(one => one.className)"
    )
    every = opened.evaluate(seen)
    verdict = every[0].split("is-")[1]
    opened.click(f"#show-{verdict}")
    left = opened.evaluate(seen)
    assert left == [name for name in every if not name.endswith(f"is-{verdict}")] != every
    for other in {name.split("is-")[1] for name in left}:
        opened.click(f"#show-{other}")
    assert opened.evaluate(seen) == []
    headings = "[...document.querySelectorAll('h4')].filter(one => one.offsetHeight).length"
    assert opened.evaluate(headings) == 0, "a topic without claims has no heading"
    opened.close()

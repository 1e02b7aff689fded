"""A real headless Chromium for the tests of what people look at."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver

BROWSER, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1600,1100"),
)

needs_chromium = pytest.mark.skipif(
    not (BROWSER.exists() and DRIVER.exists()),
    reason=f"{BROWSER} or {DRIVER} is missing: apt-get install chromium-driver",
)

# the text of the page, through the borders of all shadow trees
DEEP_TEXT = """
const text = node => node.nodeType === Node.TEXT_NODE ? node.data
  : ["SCRIPT", "STYLE", "TEMPLATE"].includes(node.nodeName) ? ""
  : [...(node.shadowRoot ? [node.shadowRoot] : []), ...node.childNodes].map(text).join(" ");
return text(document.body);
"""


@contextmanager
def chromium(folder: Path) -> Iterator[webdriver.Chrome]:
    """A browser whose profile lies in a folder of the test."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        yield browser
    finally:
        browser.quit()


def deep_text(browser: webdriver.Chrome) -> str:
    """All text of the page."""
    return str(browser.execute_script(DEEP_TEXT))


def contains(*wanted: str) -> Callable[[webdriver.Chrome], bool]:
    """A condition to wait for: the page shows all of these; blanks, at which it may break a word, don't count."""

    def shows(browser: webdriver.Chrome) -> bool:
        page = "".join(deep_text(browser).split())
        return all("".join(text.split()) in page for text in wanted)

    return shows

"""Debian's Chromium, driven by Playwright; nothing that a page asks for leaves the machine."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.peers.install import PeerUnavailable

ALL = "all"
"""Stands for all connections."""


@contextlib.contextmanager
def run_browser() -> Iterator[Browser]:
    """A headless Chromium. Raises PeerUnavailable where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise PeerUnavailable("the dashboard's tests need Chromium, which is not installed")
    # Root, as CI is, may not use the sandbox of Chromium; it opens our own page only.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            browser.close()


def wait_for_charts(page: Page) -> None:
    """Until each chart is drawn. Raises playwright's TimeoutError."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('.chart')].every(chart => chart.querySelector('svg'))"
    )


@dataclasses.dataclass
class Opened:
    """A page in a browser, and what it said and asked for since."""

    page: Page
    messages: list[str]
    requests: list[str]

    def figure(self, name: str) -> str:
        return str(self.page.text_content(f"[data-figure={name}]"))

    def choose(self, key: str, days: int) -> None:
        """Set both filters."""
        label = "All connections" if key == ALL else key
        self.page.get_by_label("Connection", exact=True).select_option(label=label)
        self.page.get_by_label("Period", exact=True).select_option(value=str(days))

    def data_table(self, title: str) -> list[list[str]]:
        """The texts of a chart's data table, row by row."""
        figure = self.page.locator("figure", has=self.page.get_by_role("heading", name=title))
        if not figure.locator("details[open]").count():
            figure.locator("summary").click()
        rows = figure.locator("tbody tr")
        rows.first.wait_for()
        return [row.locator("th, td").all_text_contents() for row in rows.all()]

    def cells(self, section: str) -> list[list[str]]:
        rows = self.page.locator(f"#{section} tbody tr")
        return [row.locator("th, td").all_text_contents() for row in rows.all()]


def open_page(browser: Browser, path: Path, width: int = 1280, scheme: str = "light") -> Opened:
    """The page of a file, its charts drawn."""
    page = browser.new_page(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    opened = Opened(page, [], [])
    page.set_default_timeout(10_000)
    page.on("console", lambda message: opened.messages.append(message.text))
    page.on("pageerror", lambda error: opened.messages.append(str(error)))
    page.on("dialog", lambda dialog: opened.messages.append(dialog.message))
    page.on("request", lambda request: opened.requests.append(request.url))
    page.goto(path.as_uri())
    wait_for_charts(page)
    return opened

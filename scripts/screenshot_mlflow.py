"""Picture of an MLflow page: `python scripts/screenshot_mlflow.py LINK OUT.png`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# MLflow opens an assistant panel over the page at the first visit.
NO_ASSISTANT = (
    "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');"
    "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')"
)


# Charts are drawn one after another as their data arrive; MLflow polls for ever, so a silent
# network cannot tell the end: the page is ready when nothing was drawn for three seconds.
SETTLED = """() => {
    const drawn = document.querySelectorAll("svg, canvas").length;
    const now = performance.now();
    if (window.vfDrawn !== drawn) { window.vfDrawn = drawn; window.vfSince = now; }
    return now - window.vfSince > 3000;
}"""


def open_page(browser: "Browser", link: str, *, width: int = 1600, height: int = 1150) -> "Page":
    """Open a link and wait until the first chart is drawn."""
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(90_000)
    context.add_init_script(NO_ASSISTANT)
    page = context.new_page()
    page.goto(link)
    page.wait_for_selector(".js-plotly-plot .main-svg")
    page.wait_for_function(SETTLED)
    return page


def screenshot(link: str, target: Path) -> None:
    """Write a PNG of the page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = open_page(browser, link)
        page.screenshot(path=str(target))
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("link")
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    screenshot(arguments.link, arguments.target)

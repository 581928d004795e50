"""A real browser for what people look at: headless Chromium that may not reach any network."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, Route, sync_playwright

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
Scheme = str


@dataclass
class Opened:
    """A page, and what it tried and said while open."""

    page: Page
    requests: list[str] = field(default_factory=list)
    """Addresses asked for, other than the page itself and data addresses."""
    complaints: list[str] = field(default_factory=list)
    """Errors of scripts and of the console (a blocked request is one)."""


OpenPage = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the file (its event loop must not outlive it); skipped where none is."""
    if not shutil.which(CHROMIUM):
        pytest.skip("no chromium in /usr/bin; `make system` installs it")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open a local file: ``open_page(path, scheme="dark", width=1400)``."""
    contexts = []

    def open_file(path: Path, *, scheme: Scheme = "light", width: int = 1400) -> Opened:
        context = browser.new_context(
            color_scheme=scheme,  # type: ignore[arg-type]
            viewport={"width": width, "height": 900},
        )
        contexts.append(context)
        context.set_default_timeout(20_000)
        page = context.new_page()
        opened = Opened(page)
        address = path.resolve().as_uri()

        def watch(request: Request) -> None:
            if request.url != address and not request.url.startswith("data:"):
                opened.requests.append(request.url)

        def gate(route: Route) -> None:
            if route.request.url.startswith(("file:", "data:", "blob:")):
                route.continue_()
            else:
                route.abort()

        page.on("request", watch)
        page.route("**/*", gate)
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        page.on(
            "console",
            lambda m: opened.complaints.append(m.text) if m.type in ("error", "warning") else None,
        )
        page.goto(address)
        return opened

    yield open_file
    for context in contexts:
        context.close()

"""A real browser for tests: pages as a desktop or a phone shows them, and whatever they complain of or ask for.

    from browser import browsing

    with browsing() as visit:                       # skips where there is no browser
        seen = visit(page_file, phone=True, dark=True)
        assert seen.page.title() == "quickstudy"
        assert not seen.complaints()

A browser is started and closed by each `browsing()`: its event loop belongs to the test that asked for it, so that
tests beside it may run their own, in this process or in another worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import pytest

PROGRAM = Path("/usr/bin/chromium")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
]
DESKTOP, PHONE = (1280, 900), (390, 844)


class Seen(NamedTuple):
    """A page that was opened, and what it did; the lists go on filling while the page is used."""

    page: Any  # a playwright Page
    console: list[str]  # warnings and errors on the console
    errors: list[str]  # exceptions that a script did not catch
    failed: list[str]  # requests that failed, or were answered by 400 or more
    outside: list[str]  # requests to another origin; of a file, any request but the page itself

    def complaints(self) -> list[str]:
        """All of it; empty for a page that is well."""
        return [*self.console, *self.errors, *self.failed, *self.outside]

    def overflow(self) -> int:
        """By how many pixels the page is wider than the screen.

        Not by `innerWidth`: a phone zooms out to a page that is too wide, and then calls that its width.
        """
        return self.page.evaluate("document.documentElement.scrollWidth") - self.page.viewport_size["width"]

    def background(self) -> tuple[int, int, int]:
        """Red, green and blue (0 to 255) of what lies behind the text of the page."""
        said = self.page.evaluate(
            """() => [document.body, document.documentElement].map(e => getComputedStyle(e).backgroundColor)
                     .find(c => c !== 'rgba(0, 0, 0, 0)') || 'rgb(255, 255, 255)'"""
        )
        red, green, blue = (float(part) for part in said[said.index("(") + 1 : -1].split(",")[:3])
        return round(red), round(green), round(blue)


class Visit(Protocol):
    def __call__(
        self, address: str | Path, *, phone: bool = False, dark: bool = False, origin: str | None = None
    ) -> Seen:
        """Open a file or an address in a window of its own, without cookies or memory of another.

        origin: where requests may go, as http://127.0.0.1:8000; the address' own by default.
        """
        ...


@contextmanager
def browsing() -> Iterator[Visit]:
    """A browser with an empty profile, closed at the end."""
    if not PROGRAM.is_file():
        pytest.skip(f"no browser at {PROGRAM}")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(PROGRAM), args=FLAGS)

        def visit(address: str | Path, *, phone: bool = False, dark: bool = False, origin: str | None = None) -> Seen:
            address = address.resolve().as_uri() if isinstance(address, Path) else address
            width, height = PHONE if phone else DESKTOP
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if dark else "light",
                is_mobile=phone,
                has_touch=phone,
            )
            seen = Seen(context.new_page(), [], [], [], [])
            _listen(seen, address, origin)
            seen.page.goto(address)
            return seen

        try:
            yield visit
        finally:
            browser.close()


def _listen(seen: Seen, address: str, origin: str | None) -> None:
    home = urlsplit(origin or address)

    def at_home(url: str) -> bool:
        there = urlsplit(url)
        if there.scheme in ("data", "blob", "about"):
            return True
        if home.scheme == "file":
            return url.split("#")[0] == address.split("#")[0]
        same = {"ws": "http", "wss": "https"}.get(there.scheme, there.scheme)
        return (same, there.netloc) == (home.scheme, home.netloc)

    def on_request(url: str) -> None:
        if not at_home(url):
            seen.outside.append(f"asked for {url}")

    def on_console(message: Any) -> None:
        if message.type in ("error", "warning"):
            seen.console.append(f"console {message.type}: {message.text}")

    def on_response(response: Any) -> None:
        if response.status >= 400:
            seen.failed.append(f"{response.status} from {response.url}")

    page = seen.page
    page.on("console", on_console)
    page.on("pageerror", lambda error: seen.errors.append(f"uncaught: {error}"))
    page.on("request", lambda request: on_request(request.url))
    page.on("websocket", lambda socket: on_request(socket.url))
    page.on("requestfailed", lambda request: seen.failed.append(f"failed: {request.url} ({request.failure})"))
    page.on("response", on_response)

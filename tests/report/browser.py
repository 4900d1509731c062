"""A browser for tests of pages: opens files, notes every fault, measures what cannot be read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    expect,
    sync_playwright,
)

WIDE, NARROW = 1440, 390
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str:
    """The installed browser; skips the test where there is none."""
    found = os.environ.get("AUDIT_TEST_BROWSER") or next(
        filter(None, map(shutil.which, _NAMES)), ""
    )
    if not found:
        pytest.skip(
            "needs Chromium: apt-get install chromium, or name one with AUDIT_TEST_BROWSER; "
            ".ci/run installs it where it runs as root"
        )
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium without a window."""
    path = find_chromium()
    with sync_playwright() as playwright:
        # Without the sandbox: it does not start as root.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page that was opened from disk, and what went wrong in it.

    Attributes:
        page: In the browser.
        folder: That it lies in.
        faults: Errors, warnings, dialogs and requests beyond the page's folder.
        requests: Addresses of all requests.
    """

    page: Page
    folder: Path
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note every fault from now on."""
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("dialog", self._on_dialog)
        self.page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def _on_dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _on_request(self, request: Request) -> None:
        self.requests.append(request.url)
        allowed = (f"{self.folder.as_uri()}/", "data:")
        if not request.url.startswith(allowed):
            self.faults.append(f"request: {request.url[:200]}")


@contextmanager
def visit(
    browser: Browser, file: Path, *, width: int = WIDE, dark: bool = False, hash_: str = ""
) -> Iterator[Visit]:
    """Open a page; at the end it must have had no fault."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.set_default_timeout(15_000)
    opened = Visit(page, file.parent)
    opened.watch()
    try:
        page.goto(file.as_uri() + hash_)
        yield opened
        assert opened.faults == []
    finally:
        context.close()


# Two frames: what watches the window's content has been told, and has drawn.
_SETTLED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def fill(page: Page) -> None:
    """Come near every part of the page that is made only then."""
    for place in page.locator("[data-fill]").all():
        place.scroll_into_view_if_needed()
        page.evaluate(_SETTLED)
    expect(page.locator("[data-fill=classes] form")).to_be_visible()
    expect(page.locator("[data-fill=gallery] form")).to_be_visible()
    page.evaluate("window.scrollTo(0, 0)")
    page.evaluate(_SETTLED)


# What reaches beyond the window, or is cut off by its own box, without a way to scroll to it.
_UNREACHABLE = """() => {
  const found = [];
  const name = (e) => e.tagName.toLowerCase() + (e.id ? "#" + e.id : "")
    + [...e.classList].map((each) => "." + each).join("")
    + ` "${(e.textContent || "").trim().slice(0, 40)}"`;
  const root = document.scrollingElement;
  if (root.scrollWidth > innerWidth) found.push(`the page is ${root.scrollWidth} wide`);
  const open = [...document.querySelectorAll("dialog[open]")].pop() || document.body;
  const shows = (e) => {
    const style = getComputedStyle(e);
    return style.visibility !== "hidden" && e.checkVisibility && e.checkVisibility();
  };
  for (const e of open.querySelectorAll("*")) {
    if (!shows(e) || e.closest("svg svg *")) continue;
    const style = getComputedStyle(e), box = e.getBoundingClientRect();
    // For readers of screens only.
    if (box.width <= 1 || box.height <= 1) continue;
    let scrolls = false, hidden = false;
    for (let up = e.parentElement; up; up = up.parentElement) {
      const of = getComputedStyle(up);
      // What ends in an ellipsis says that it goes on.
      if (/auto|scroll/.test(of.overflowX) || of.textOverflow === "ellipsis") scrolls = true;
      const rect = up.getBoundingClientRect();
      if (rect.width <= 1 || rect.height <= 1 || of.clipPath !== "none") hidden = true;
    }
    if (hidden) continue;
    if (!scrolls && (box.right > innerWidth + 1 || box.left < -1) && style.position !== "fixed"
        && !e.matches(".skip")) {
      found.push(`${name(e)} reaches from ${Math.round(box.left)} to ${Math.round(box.right)}`);
    }
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (own && /hidden|clip/.test(style.overflowX) && e.scrollWidth > e.clientWidth + 1
        && style.textOverflow !== "ellipsis" && !e.matches("select, option")) {
      found.push(`${name(e)} is cut at ${e.clientWidth} of ${e.scrollWidth}`);
    }
  }
  return found.slice(0, 20);
}"""


def unreachable(page: Page) -> list[str]:
    """What of the page (of the dialog that is open) cannot be read at this width."""
    found: list[str] = page.evaluate(_UNREACHABLE)
    return found


def violations(page: Page, *rules: str) -> list[str]:
    """Serious and critical findings of axe-core, by some of its rules or by all."""
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = list(rules)
    response: dict[str, Any] = Axe().run(page, options=options).response
    return [
        f"{found['id']} ({found['impact']}): {node['target']} {node['failureSummary'][:300]}"
        for found in response["violations"]
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"][:5]
    ]

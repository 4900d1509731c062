"""How long a report's page takes to open in Chromium, and how large it is.

A large run without a model: python -m tests.report.generated FOLDER --classes 1000 --samples 100000
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from audit.tables import load_run

_NAMES = ("chromium", "chromium-browser", "google-chrome")
# Milliseconds since the navigation began: the first text painted, the page's own scripts done, and
# the first row of the table of classes laid out in the window.
_MOMENTS = """async () => {
  const row = () => document.querySelector("[data-fill=classes] tbody tr");
  document.querySelector("[data-fill=classes]").scrollIntoView();
  while (!row() || !row().getBoundingClientRect().height) {
    await new Promise((done) => requestAnimationFrame(done));
  }
  const shown = performance.now();
  const navigation = performance.getEntriesByType("navigation")[0];
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return {
    "first paint": paint ? paint.startTime : NaN,
    "scripts done": navigation.domContentLoadedEventEnd,
    "loaded": navigation.loadEventEnd,
    "first class shown": shown,
  };
}"""


def open_once(browser: Browser, page: Path) -> dict[str, float]:
    """Milliseconds to each moment of one opening, in a fresh profile."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    try:
        tab = context.new_page()
        tab.goto(page.resolve().as_uri())
        moments: dict[str, float] = tab.evaluate(_MOMENTS)
    finally:
        context.close()
    return moments


def main() -> None:
    """Print size and times of a run's page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--times", type=int, default=7)
    settings = parser.parse_args()
    run = load_run(settings.run)
    page = run.path / "index.html"
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        found = [open_once(browser, page) for _ in range(settings.times)]
        version = browser.version
        browser.close()
    classes, samples = len(run.manifest["classes"]), run.manifest["totals"]["samples"]
    size = page.stat().st_size / 1e6
    print(f"{classes:,} classes, {samples:,} samples: {size:.1f} MB; Chromium {version}")
    for moment in found[0]:
        times = [each[moment] / 1000 for each in found]
        print(
            f"{moment:>18}: median {statistics.median(times):.2f} s "
            f"({min(times):.2f} to {max(times):.2f}, {len(times)} times)"
        )


if __name__ == "__main__":
    main()

"""What a page of the report carries inside it: styles, scripts, and the policy that allows them."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from markupsafe import Markup

# Chooses light or dark before anything is drawn.
THEME = "theme.js"
D3, PLOT = "vendor/d3-7.9.2.min.js", "vendor/plot-0.6.17.min.js"
# The report's own page: charts come last, what is drawn with them waits for them.
PAGE_STYLES = ("report.css",)
PAGE_SCRIPTS = (
    "core.js", "table.js", "heat.js", "samples.js", "gallery.js", "plots.js", "classes.js",
    "page.js", D3, PLOT,
)  # fmt: skip


@dataclass(frozen=True)
class Script:
    """A script as it stands in a page.

    Attributes:
        text: Its source, the text between the tags to the byte.
        source: Its hash in the form of a Content-Security-Policy.
    """

    text: Markup
    source: str


@cache
def static_text(name: str) -> str:
    """A file of ``audit/report/static``."""
    return resources.files("audit.report").joinpath("static", name).read_text("utf-8")


def style(*names: str) -> Markup:
    """Style sheets, one after the other, for a ``<style>`` element.

    Example:
        >>> "</style" in style("base.css")
        False
    """
    return Markup("\n".join(static_text(name) for name in names))  # noqa: S704, our own files


@cache
def script(name: str) -> Script:
    """A script of ours for a ``<script>`` element.

    Example:
        >>> script(THEME).source[:8]
        "'sha256-"
    """
    text = static_text(name).strip()
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(Markup(text), f"'sha256-{digest}'")  # noqa: S704, our own file


def embedded_json(data: Any) -> Markup:
    r"""JSON for ``<script type="application/json">``: no text in it can end the element.

    Args:
        data: Anything of JSON; numbers finite.

    Raises:
        ValueError: If a number is NaN or infinite.

    Example:
        >>> str(embedded_json({"name": "</script>"}))
        '{"name":"\\u003c/script>"}'
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704, no "<" is left


def frame(*, styles: tuple[str, ...] = (), scripts: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values that ``base.html.j2`` needs, whatever the page.

    Args:
        styles: Style sheets after ``base.css``.
        scripts: Scripts at the page's end, in this order.

    Returns:
        ``css``, ``theme_script``, ``scripts`` and ``policy``: nothing from outside, no script but
        these.

    Example:
        >>> frame(scripts=("core.js",))["policy"].startswith("default-src 'none'; ")
        True
    """
    theme, carried = script(THEME), [script(name) for name in scripts]
    sources = " ".join(entry.source for entry in (theme, *carried))
    return {
        "css": style("base.css", *styles),
        "theme_script": theme,
        "scripts": carried,
        "policy": "default-src 'none'; img-src data: file: 'self'; style-src 'unsafe-inline'; "
        f"script-src {sources}; base-uri 'none'; form-action 'none'",
    }

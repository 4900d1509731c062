"""The report's catalogues, brought up to date with its texts: ``make messages``.

A message is what stands, as a literal, in ``text("…")`` and ``plural("…", "…", n)``, in
``say("…")`` of ``audit/tables``, which cannot know the language, and in ``_("…")`` and
``{% trans %}`` of templates. Babel reads them; only development needs it.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from audit.report import language

_METHODS = [
    ("report/**.py", "python"),
    ("tables/**.py", "python"),
    ("report/templates/**.j2", "jinja2"),
]
# As Language.install and the page set up the environment of templates.
_TEMPLATES = {
    "newstyle_gettext": "true",
    "trimmed": "true",
    "trim_blocks": "true",
    "lstrip_blocks": "true",
    "silent": "false",
}
_KEYWORDS = {**DEFAULT_KEYWORDS, "text": None, "say": None, "plural": (1, 2)}


def extract() -> Catalog:
    """All messages of the sources."""
    entries = extract_from_dir(
        language.LOCALE.parents[1],
        _METHODS,
        {"report/templates/**.j2": _TEMPLATES},
        keywords=_KEYWORDS,
        comment_tags=("Translators:",),
        strip_comment_tags=True,
    )
    found = Catalog()
    for _, _, message, comments, context in sorted(entries, key=lambda entry: entry[:2]):
        found.add(message, auto_comments=comments, context=context)
    return found


def file_of(name: str, ending: str) -> Path:
    """Where the catalogue of a language lies."""
    return language.LOCALE / name / "LC_MESSAGES" / f"{language.DOMAIN}.{ending}"


def read(name: str) -> Catalog:
    """A language's catalogue."""
    with file_of(name, "po").open("rb") as file:
        return read_po(file, locale=name)


def messages(catalogue: Catalog) -> list[Message]:
    """Without the header."""
    return [message for message in catalogue if message.id]


def compiled(catalogue: Catalog) -> bytes:
    """A catalogue as gettext reads it."""
    buffer = io.BytesIO()
    write_mo(buffer, catalogue)
    return buffer.getvalue()


def updated(old: Catalog, sources: Catalog) -> Catalog:
    """A catalogue with the messages of the sources, translated as far as it was before."""
    new = Catalog(
        locale=old.locale, project="audit", version="1", copyright_holder="",
        msgid_bugs_address="none", header_comment=old.header_comment, fuzzy=False,
        creation_date=old.creation_date, revision_date=old.revision_date,
        last_translator="none", language_team="none",
    )  # fmt: skip
    for message in messages(sources):
        known = old.get(message.id, message.context)
        new.add(
            message.id,
            known.string if known is not None else None,
            auto_comments=message.auto_comments,
            context=message.context,
        )
    return new


def main() -> int:
    """Update and compile every catalogue; says what is left to translate."""
    sources, left = extract(), 0
    for name in language.LANGUAGES:
        if not file_of(name, "po").exists():
            continue
        catalogue = updated(read(name), sources)
        file_of(name, "mo").write_bytes(compiled(catalogue))
        for message in messages(catalogue):
            # Babel takes the "% i" of "95% interval" for a value to be filled in.
            if "%(" not in str(message.id):
                message.flags.discard("python-format")
        with file_of(name, "po").open("wb") as file:
            write_po(file, catalogue, width=0)
        missing = [str(m.id) for m in messages(catalogue) if not (m.string and all(m.string))]
        for text in missing:
            print(f"{name} lacks: {text}")
        left += len(missing)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())

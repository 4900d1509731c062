"""The language of the report: English as it stands in the sources, others from catalogues.

A catalogue is made of ``locale/<name>/LC_MESSAGES/audit.po`` by ``make messages``; the compiled
``audit.mo`` beside it is what is read here.
"""

from __future__ import annotations

import gettext
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from jinja2 import Environment

from audit import config
from audit.errors import ConfigError

LANGUAGES: tuple[str, ...] = get_args(config.Language)
LOCALE = Path(__file__).parent / "locale"
DOMAIN = "audit"
# What a browser is told: it picks the shapes of characters and a reader's voice by it.
_TAGS = {"en": "en", "zh": "zh-Hans"}
# What stands between two sentences and between two things of a list.
_BETWEEN_SENTENCES = {"en": " ", "zh": ""}
_BETWEEN_THINGS = {"en": ", ", "zh": "、"}


@dataclass(frozen=True)
class Language:
    """One language of the report.

    Attributes:
        name: One of :data:`LANGUAGES`.
    """

    name: str
    _catalogue: gettext.NullTranslations = field(repr=False, compare=False)

    @property
    def tag(self) -> str:
        """The name of the language for HTML's ``lang``."""
        return _TAGS[self.name]

    def text(self, message: str) -> str:
        """A message in this language.

        Args:
            message: As in the sources, in English, with ``{name}`` where a value goes; the caller
                fills it with :meth:`str.format`.

        Returns:
            The translation, or the message itself where there is none.

        Example:
            >>> load_language("en").text("{n} images").format(n=3)
            '3 images'
        """
        return self._catalogue.gettext(message)

    def plural(self, one: str, many: str, n: int) -> str:
        """The form of a message that goes with a number.

        Args:
            one: The message for one thing.
            many: The message for any other number.
            n: How many things.

        Returns:
            The translation; ``{n}`` in it is still the caller's to fill.

        Example:
            >>> load_language("en").plural("{n} image", "{n} images", 1).format(n=1)
            '1 image'
        """
        return self._catalogue.ngettext(one, many, n)

    def sentences(self, sentences: Iterable[str]) -> str:
        """Whole sentences, one after the other.

        Args:
            sentences: In this language; empty ones are left out.

        Example:
            >>> load_language("en").sentences(["It fits.", "", "All is well."])
            'It fits. All is well.'
        """
        return _BETWEEN_SENTENCES[self.name].join(part for part in sentences if part)

    def things(self, things: Iterable[str]) -> str:
        """Things in a row, such as names.

        Example:
            >>> load_language("en").things(["cat", "dog"]), load_language("zh").things(["猫", "狗"])
            ('cat, dog', '猫、狗')
        """
        return _BETWEEN_THINGS[self.name].join(things)

    def install(self, environment: Environment) -> None:
        """Let templates say ``_("…")`` and ``{% trans %}`` in this language.

        Values are filled in as ``%(name)s`` and escaped; a percent sign is written ``%%``. Line
        ends and indents inside ``{% trans %}`` count as one space.

        Args:
            environment: Is changed.
        """
        environment.policies["ext.i18n.trimmed"] = True
        environment.add_extension("jinja2.ext.i18n")
        install = vars(environment)["install_gettext_translations"]
        install(self._catalogue, newstyle=True)


def load_language(name: str) -> Language:
    """Open a language.

    Args:
        name: One of :data:`LANGUAGES`.

    Returns:
        The language.

    Raises:
        ConfigError: There is no such language.

    Example:
        >>> load_language("en").tag, load_language("zh").tag
        ('en', 'zh-Hans')
    """
    if name not in LANGUAGES:
        raise ConfigError(
            "the report's language is unknown", expected=" or ".join(LANGUAGES), found=name
        )
    if name == "en":
        return Language(name, gettext.NullTranslations())
    return Language(name, gettext.translation(DOMAIN, LOCALE, languages=[name]))

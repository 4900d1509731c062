"""How pictures look: the colours of heatmaps, and the language of what is written on them."""

from __future__ import annotations

from dataclasses import dataclass, field

from audit.config import Colours
from audit.report.language import Language, load_language
from audit.report.pictures.fonts import can_draw_chinese


@dataclass(frozen=True, kw_only=True)
class Style:
    """How pictures look.

    Attributes:
        colours: Of heatmaps: ``jet``, ``viridis``, ``cividis`` or ``inferno``.
        language: Of titles and captions.
    """

    colours: Colours = "jet"
    language: Language = field(default_factory=lambda: load_language("en"))


def choose_style(colours: Colours, lang: str) -> Style:
    """The style for a run's settings, as far as this machine can draw it.

    Args:
        colours: As in :class:`audit.config.AuditConfig`.
        lang: Likewise.

    Returns:
        The style; in English where no installed font has Chinese characters.

    Example:
        >>> choose_style("viridis", "en").language.name
        'en'
    """
    drawable = lang != "zh" or can_draw_chinese()
    return Style(colours=colours, language=load_language(lang if drawable else "en"))

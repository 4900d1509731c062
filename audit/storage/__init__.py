"""Where runs are kept: folders and object stores, as places of whole files."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from audit.storage.local import LocalStorage
from audit.storage.objects import ObjectStorage
from audit.storage.protocol import Entry, Storage
from audit.storage.trouble import Patience

__all__ = [
    "Entry", "LocalStorage", "ObjectStorage", "Patience", "Storage", "is_remote", "open_storage"
]  # fmt: skip

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def is_remote(place: str) -> bool:
    """Whether a place is named by a URL that is not of this machine's disks.

    Args:
        place: A folder or a URL.

    Example:
        >>> [is_remote(place) for place in ("reports", "s3://bucket/reports", "file:///tmp")]
        [False, True, False]
    """
    return _SCHEME.match(place) is not None and not place.lower().startswith("file://")


def open_storage(place: str | Path) -> Storage:
    """A place to keep a run, or runs, in.

    Args:
        place: A folder, which is created with the first file, or a URL such as
            ``s3://bucket/reports``.

    Raises:
        ConfigError: If it is the URL of a store that is not supported, or if the package that it
            needs is not installed.

    Example:
        >>> open_storage("reports").place
        'reports'
    """
    text = str(place)
    if is_remote(text):
        return ObjectStorage(text)
    if _SCHEME.match(text):
        return LocalStorage(Path(unquote(urlsplit(text).path)))
    return LocalStorage(Path(place))

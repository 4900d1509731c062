"""Files and objects by path or URI: names, and what is needed to read them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from audit.errors import DataError, visible

# What to install for a protocol, where fsspec does not bring it itself.
_BACKENDS = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp",
    "https": "aiohttp", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs", "hf": "huggingface_hub",
    "sftp": "paramiko", "ssh": "paramiko",
}  # fmt: skip
# Python's ValueError where a name holds a zero byte or half a surrogate pair.
NO_NAME = "no file can have such a name"


def is_uri(place: str) -> bool:
    """Whether a place is a URI rather than a path.

    Example:
        >>> is_uri("s3://bucket/cat.jpg"), is_uri("pictures/cat.jpg")
        (True, False)
    """
    return "://" in place


def join(base: str, name: str) -> str:
    """A name relative to a folder, or the name itself where it is complete.

    Args:
        base: A folder, as path or URI.
        name: A relative or absolute path, or a URI.

    Returns:
        The place that is meant.

    Example:
        >>> join("s3://bucket/data", "cats/1.jpg"), join("data", "/mnt/1.jpg")
        ('s3://bucket/data/cats/1.jpg', '/mnt/1.jpg')
    """
    if is_uri(name):
        return name
    if is_uri(base):
        return f"{base.rstrip('/')}/{name.lstrip('/')}"
    return os.path.join(base, name)  # noqa: PTH118 - Path would drop surrogates of odd names


def shown(name: str) -> str:
    """A name for messages: absolute paths by their last two parts.

    Example:
        >>> shown("/home/me/data/masks/1.png"), shown("a/1.png")
        ('…/masks/1.png', 'a/1.png')
    """
    text = as_text(name)
    if is_uri(text) or not Path(name).is_absolute():
        return text
    return "…/" + "/".join(text.split("/")[-2:])


def as_text(path: str | Path) -> str:
    r"""A path for people: control characters, and bytes that are not UTF-8, are escaped.

    Example:
        >>> print(as_text("\x1b[31m\udcff.png"))
        \x1b[31m\xff.png
    """
    return visible(str(path))


def reason(error: OSError) -> str:
    """Why something could not be read, without the path that the error names.

    Example:
        >>> reason(FileNotFoundError(2, "No such file or directory", "/home/me/x.png"))
        'No such file or directory'
    """
    if isinstance(error, FileNotFoundError):
        return "No such file or directory"
    return error.strerror or (str(error).splitlines() or [type(error).__name__])[0]


def require_backends(places: Iterable[str]) -> None:
    """Refuse URIs that no installed file system reads.

    Args:
        places: Paths and URIs.

    Raises:
        DataError: If a protocol is unknown, or wants a package that is not installed.
    """
    import fsspec

    for protocol in sorted({place.partition("://")[0] for place in places if is_uri(place)}):
        # Chained ones (simplecache::s3) want every link.
        for link in protocol.split("::"):
            try:
                fsspec.get_filesystem_class(link)
            except ValueError as error:
                raise DataError(
                    f"nothing is known that reads {link}:// addresses",
                    expected="s3://, gs://, https:// or another protocol of fsspec",
                    found=f"{protocol}://",
                ) from error
            except ImportError as error:
                package = _BACKENDS.get(link)
                raise DataError(
                    f"{link}:// addresses want a package that is not installed",
                    found=str(error).splitlines()[0],
                    remedy=f"pip install {package}" if package else None,
                ) from error


def matching(place: str, ending: str) -> list[str] | None:
    """The files or objects that a folder or a glob means, sorted.

    Args:
        place: A path or URI.
        ending: What files of a folder end with.

    Returns:
        Their places; ``None`` where it names one file.

    Raises:
        DataError: If a store cannot be listed.
    """
    if not is_uri(place):
        if Path(place).is_dir():
            pattern = os.path.join(glob.escape(place), f"*{ending}")  # noqa: PTH118
        elif glob.has_magic(place) and not Path(place).exists():
            pattern = place
        else:
            return None
        # Not Path.glob, which takes no absolute patterns.
        return sorted(name for name in glob.glob(pattern, recursive=True) if Path(name).is_file())  # noqa: PTH207
    if place.endswith("/"):
        place = f"{place}*{ending}"
    # A question mark begins a query.
    if not ("*" in place or "[" in place):
        return None
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(place)
        system.invalidate_cache()
        return sorted(system.unstrip_protocol(name) for name in system.glob(path))
    except Exception as error:  # each file system has errors of its own
        raise DataError(
            f"{place} cannot be listed", found=f"{type(error).__name__}: {error}".partition("\n")[0]
        ) from error


def listing(folder: Path) -> str:
    """What a folder holds, in few words, for messages."""
    if not folder.is_dir():
        return "no such folder"
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "") if names else "an empty folder"

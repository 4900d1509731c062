"""What goes wrong with object stores: what is tried again, and what the user is told."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from audit.errors import OutputError

_Result = TypeVar("_Result")

_BUSY_STATUS = {408, 425, 429, 500, 502, 503, 504}
_BUSY_CODES = {
    "SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling",
    "ThrottlingException", "RequestLimitExceeded", "OperationAborted",
    "ConditionalRequestConflict", "XAmzContentSHA256Mismatch", "BadDigest", "IncompleteBody",
}  # fmt: skip
# Classes of botocore, aiohttp, requests, urllib3 and fsspec, by name: none need be installed.
_BUSY_CLASSES = {
    "HTTPClientError", "ResponseParserError", "IncompleteRead", "ProtocolError", "ClientError",
    "ClientConnectionError", "ClientPayloadError", "ServerTimeoutError", "FSTimeoutError",
    "ChecksumError", "RequestException", "TransportError",
}  # fmt: skip
_EXPIRED_CODES = {
    "ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired",
}  # fmt: skip
_REFUSED_STATUS = {401, 403}
_REFUSED_CODES = {
    "AccessDenied", "AllAccessDisabled", "AccountProblem", "InvalidAccessKeyId", "InvalidToken",
    "SignatureDoesNotMatch", "NotSignedUp", "InvalidSecurity", "RequestTimeTooSkewed",
}  # fmt: skip
_REFUSED_CLASSES = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound",
    "TokenRetrievalError", "SSOError", "DefaultCredentialsError", "RefreshError",
    "GoogleAuthError",
}  # fmt: skip
_RENEW = "renew the credentials, or their rights, and run the same command again: finished parts "
_RENEW += "are kept"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a busy store is asked again.

    Attributes:
        tries: Of one request.
        first: Longest wait after the first try, in seconds; twice that after the next, and so on.
            Each wait is drawn evenly between 0 and its longest.
        longest: Longest wait of all.
        seconds: After so long since the first try no other is begun.
        connect: Seconds to wait for a connection.
        answer: Seconds to wait for the store to say something.
    """

    tries: int = 8
    first: float = 0.5
    longest: float = 15.0
    seconds: float = 300.0
    connect: float = 10.0
    answer: float = 60.0


class Unsupported(Exception):
    """The store does not know what it was asked for."""


class _Busy(Exception):
    """It may work another time."""


def patiently(call: Callable[[], _Result], place: str, patience: Patience) -> _Result:
    """Ask a store, again where that may help.

    Args:
        call: The request; is made several times where the store is busy or out of reach.
        place: For messages.
        patience: How often, and for how long.

    Raises:
        FileNotFoundError: If there is no such object.
        FileExistsError: If there is one already.
        Unsupported: If the store does not know the request.
        OutputError: If it refuses, or does not answer.
    """
    import tenacity

    def once() -> _Result:
        try:
            return call()
        except Exception as error:
            raise _told(error, place) from error

    again = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_Busy),
        wait=tenacity.wait_random_exponential(multiplier=patience.first, max=patience.longest),
        stop=tenacity.stop_after_attempt(patience.tries)
        | tenacity.stop_after_delay(patience.seconds),
        reraise=True,
    )
    try:
        return again(once)
    except _Busy as error:
        tries = again.statistics["attempt_number"]
        raise OutputError(
            f"the store was busy or out of reach in {tries} tries for {place}",
            found=str(error),
            remedy="run the same command again later: finished parts are kept",
        ) from error


def _told(error: Exception, place: str) -> Exception:
    """A library's error as one of ours."""
    chain = list(_chain(error))
    codes = {code for each in chain for code in _codes(each)}
    names = {kind.__name__ for each in chain for kind in type(each).__mro__}
    said = _words(chain)
    if isinstance(error, OutputError):
        told: Exception = error
    elif "NoSuchBucket" in codes:
        told = OutputError(
            f"the bucket of {place} does not exist", remedy="create it, or name another"
        )
    elif codes & {"PreconditionFailed", 412} or isinstance(error, FileExistsError):
        told = FileExistsError(said)
    elif codes & _EXPIRED_CODES:
        told = OutputError(f"the credential for {place} has expired", found=said, remedy=_RENEW)
    elif "ateLimitExceeded" in said:
        told = _Busy(said)
    elif names & {"NoCredentialsError", "PartialCredentialsError"}:
        told = OutputError(
            f"no credentials were found for {place}",
            found=said,
            remedy="give some, for example as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or in a "
            "profile (docs/storage.md)",
        )
    elif codes & _REFUSED_CODES or codes & _REFUSED_STATUS or names & _REFUSED_CLASSES:
        told = OutputError(f"{place} refuses the credential", found=said, remedy=_RENEW)
    elif codes & {"NotImplemented", 501}:
        told = Unsupported(said)
    elif codes & {404, "404", "NoSuchKey"} or isinstance(error, FileNotFoundError):
        told = FileNotFoundError(f"nothing at {place}")
    elif codes & _BUSY_CODES or codes & _BUSY_STATUS or _is_of_the_way(chain, codes, names):
        told = _Busy(said)
    else:
        told = OutputError(f"{place} cannot be used", found=said)
    return told


def _is_of_the_way(chain: list[BaseException], codes: set[str | int], names: set[str]) -> bool:
    """Whether the way to the store failed: no answer, or half of one."""
    if codes:  # It answered. (botocore calls refusals ClientError, aiohttp lost connections.)
        return False
    lost = {errno.ECONNRESET, errno.EPIPE, errno.EBUSY}
    return bool(names & _BUSY_CLASSES) or any(
        isinstance(each, TimeoutError | ConnectionError)
        or (isinstance(each, OSError) and each.errno in lost)
        for each in chain
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _codes(error: BaseException) -> Iterator[str | int]:
    """What a store answered: its word for it, and the HTTP status."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's ClientError
        code = response.get("Error", {}).get("Code")
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        yield from (each for each in (code, status) if each is not None)
    code = getattr(error, "code", None)
    if type(error).__name__ == "HttpError" and code is not None:  # gcsfs's
        yield int(code)
    if type(error) is OSError and str(error).startswith("Forbidden: "):  # gcsfs's as well
        yield 403


def _words(chain: list[BaseException]) -> str:
    """The first line that says something, with the store's word for it or the error's class."""
    text = next((text for each in chain if (text := str(each).strip())), "no words")
    line = next(iter(text.splitlines()))
    words = [code for each in chain for code in _codes(each) if isinstance(code, str)]
    name = words[0] if words else type(chain[-1]).__name__
    return line if name in line else f"{line} ({name})"

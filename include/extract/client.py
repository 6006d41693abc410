"""How a source is asked over HTTP: time limits, retries, and where the credentials may go."""

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import IncompleteRead
from math import isfinite
from random import uniform
from urllib.parse import urljoin, urlsplit

import requests
import tenacity
import urllib3.exceptions

from include.extract.authentication import QueryKeyAuth, RenewableAuth, TokenError
from include.extract.pagination import PageRequest
from include.masking import mask_url, mask_values, sent_secrets

__all__ = ["Answer", "SourceClient", "SourceError", "http_date"]

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
LONGEST_RETRY_AFTER = 300.0
LARGEST_BODY = 256 * 1024 * 1024
MOST_REDIRECTS = 5
_CHUNK = 256 * 1024
_EXCERPT_CHARACTERS = 200

_DEFAULT_PORTS = {"http": 80, "https": 443}


class SourceError(Exception):
    """The source did not give what was asked for. The message is fit for people: it holds no secret.

    `retryable` says whether the same request may well succeed later.
    """

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


@dataclass(frozen=True)
class Answer:
    """A complete answer of status 200.

    `url` is the one that answered, after redirects; `headers` are looked up without regard to case; `elapsed` is the
    time from the request to the headers.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes
    elapsed: timedelta


@dataclass(frozen=True)
class _Failure:
    reason: str
    remedy: str
    retryable: bool
    retry_after: float | None = None
    missing: bool = False
    unauthorized: bool = False


@dataclass(frozen=True)
class _Redirect:
    url: str


class SourceClient:
    """Asks one source for one entity.

    429, 5xx, broken connections, time-outs and bodies that break off are tried again, at most `attempts` times in all
    and never beyond `total_seconds` after the first try (the last answer aside), after the answer's `Retry-After` (on
    429 and 503; 300 s at most) or after 1, 2, 4 ... seconds with jitter. Anything else fails at once.

    Credentials go to the origin (scheme, host, port) of `base_url` only: a request or redirect to another is refused
    before anything is sent. Not safe for use by two threads at once, as the session is not.
    """

    def __init__(
        self,
        session: requests.Session,
        base_url: str,
        entity: str,
        *,
        connection: str = "source_api",
        attempts: int = 6,
        total_seconds: float = 900.0,
        answer_seconds: float = 300.0,
        requests_per_second: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            session: carries the credentials: headers, auth, certificates.
            base_url: scheme, host and, where needed, port and path; no user information.
            entity: named in errors and logs.
            connection: the name of the connection that `base_url` and the credentials come from, for errors.
            attempts: tries for one page.
            total_seconds: the time after which no further try for a page begins.
            answer_seconds: the longest that one answer may take, however steadily it trickles.
            requests_per_second: the most that is sent, tries included; None for no bound.
            sleep: waits between tries and requests.

        Raises:
            SourceError: `base_url` is not an http or https URL, or holds credentials.
        """
        self.base_url = base_url
        self.entity = entity
        self._session = session
        self._connection = connection
        self._attempts = attempts
        self._total_seconds = total_seconds
        self._answer_seconds = answer_seconds
        self._pause_seconds = 1 / requests_per_second if requests_per_second else 0.0
        self._next_at = 0.0
        self._sleep = sleep
        self._secrets = {session.auth.key} if isinstance(session.auth, QueryKeyAuth) else set()
        try:
            self._origin = _origin(base_url)
        except ValueError:
            raise self.error(
                base_url,
                "is not a URL that can be asked",
                f'give the connection "{connection}" a scheme, http or https, and a host, '
                "and its login and password in their own fields",
                retryable=False,
            ) from None

    def ask(self, request: PageRequest, *, may_be_missing: bool = False) -> Answer | None:
        """Send `request` with the session's credentials; None for a 404 where the page `may_be_missing`.

        Raises:
            SourceError: refused, or still failing after the last try; says what happened and what to do.
        """
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._attempts) | tenacity.stop_before_delay(self._total_seconds),
            wait=_wait,
            retry=tenacity.retry_if_result(lambda outcome: isinstance(outcome, _Failure) and outcome.retryable),
            before_sleep=lambda state: self._log_retry(request.url, state),
            retry_error_callback=_outcome,
            sleep=self._sleep,
        )
        started = time.monotonic()
        outcome = retrying(self._follow, request)
        if isinstance(outcome, Answer):
            return outcome
        if outcome.missing and may_be_missing:
            return None
        tries = retrying.statistics["attempt_number"]
        tried = f" ({tries} tries in {time.monotonic() - started:.0f} s)" if tries > 1 else ""
        raise self.error(request.url, outcome.reason + tried, outcome.remedy, retryable=outcome.retryable)

    def error(self, url: str, reason: str, remedy: str, *, retryable: bool) -> SourceError:
        """A `SourceError` about `url`, with everything secret that the client has sent masked."""
        message = f"{self.entity}: {mask_url(url)} {reason}: {remedy}"
        return SourceError(mask_values(message, self._secrets), retryable=retryable)

    def without_credentials(self, request: PageRequest) -> PageRequest:
        """A request as it may be stored: without an API key in its query, which every request gets anew."""
        auth = self._session.auth
        return auth.removed(request) if isinstance(auth, QueryKeyAuth) else request

    def _log_retry(self, url: str, state: tenacity.RetryCallState) -> None:
        log.warning(
            "%s: %s; try %d of %d in %.1f s",
            self.entity,
            mask_values(f"{mask_url(url)} {_outcome(state).reason}", self._secrets),
            state.attempt_number + 1,
            self._attempts,
            state.upcoming_sleep,
        )

    def _follow(self, request: PageRequest) -> Answer | _Failure:
        """One try, along redirects within the origin, and once more with a new token where the old one is refused."""
        redirects, renewed = 0, False
        while True:
            outcome = self._send(request)
            if isinstance(outcome, _Redirect):
                if redirects == MOST_REDIRECTS:
                    remedy = "check the path in the contract's endpoint"
                    return _Failure(f"redirects more than {MOST_REDIRECTS} times", remedy, retryable=False)
                redirects += 1
                request = PageRequest(outcome.url, request.body)
            elif isinstance(outcome, _Failure) and outcome.unauthorized and not renewed and self._renew():
                renewed = True
            else:
                return outcome

    def _renew(self) -> bool:
        """Whether the next request will carry a new token."""
        auth = self._session.auth
        return isinstance(auth, RenewableAuth) and auth.renew()

    def _send(self, request: PageRequest) -> Answer | _Failure | _Redirect:
        try:
            method = "GET" if request.body is None else "POST"
            prepared = self._session.prepare_request(requests.Request(method, request.url, json=request.body))
            target = prepared.url or ""
            origin = _origin(target)
        except TokenError as error:
            remedy = f'check connection "{self._connection}"'
            return _Failure(f"was not asked: {error}", remedy, retryable=error.retryable)
        except ValueError:  # requests' own errors of this kind are ValueErrors too, and may quote a header
            return _Failure(
                "leads to a URL that cannot be requested",
                f'check the next link, the redirect or the headers of the connection "{self._connection}"',
                retryable=False,
            )
        self._secrets |= sent_secrets(target, dict(prepared.headers))
        if origin != self._origin:
            return _Failure(
                f"leads to {mask_url(target)}, another origin than that of the connection: refused, nothing was sent",
                f'if the source is right, give the connection "{self._connection}" that scheme, host and port',
                retryable=False,
            )
        settings = self._session.merge_environment_settings(target, {}, True, None, None)
        self._pace()
        deadline = time.monotonic() + self._answer_seconds
        try:
            response = self._session.send(
                prepared, timeout=(CONNECT_SECONDS, READ_SECONDS), allow_redirects=False, **settings
            )
            with response:
                return self._judge(response, deadline)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            return self._broken(error)

    def _pace(self) -> None:
        """Wait until the source may be asked again."""
        now = time.monotonic()
        if now < self._next_at:
            self._sleep(self._next_at - now)
        self._next_at = max(now, self._next_at) + self._pause_seconds

    def _judge(self, response: requests.Response, deadline: float) -> Answer | _Failure | _Redirect:
        status = response.status_code
        if status == HTTPStatus.OK:
            body = bytearray()
            for chunk in _chunks(response):
                body += chunk
                if len(body) > LARGEST_BODY:
                    return _Failure(
                        f"answered with more than {LARGEST_BODY:,} bytes",
                        "lower `page_size` in the contract's endpoint",
                        retryable=False,
                    )
                if time.monotonic() > deadline:
                    return _Failure(
                        f"had not finished its answer after {self._answer_seconds:.0f} s",
                        "lower `page_size` in the contract's endpoint if this goes on",
                        retryable=True,
                    )
            return Answer(response.url, response.headers, bytes(body), response.elapsed)
        target = self._session.get_redirect_target(response)
        if target is not None:
            return _Redirect(urljoin(response.url, target))
        reason = f"answered {status} {response.reason or ''}".rstrip()
        excerpt = mask_values(_excerpt(response, deadline), self._secrets)[:_EXCERPT_CHARACTERS]
        if excerpt:
            reason += f", saying {excerpt!r}"
        waits = status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
        return _Failure(
            reason,
            self._remedy(status),
            retryable=waits or status >= HTTPStatus.INTERNAL_SERVER_ERROR,
            retry_after=_retry_after(response.headers) if waits else None,
            missing=status == HTTPStatus.NOT_FOUND,
            unauthorized=status == HTTPStatus.UNAUTHORIZED,
        )

    def _remedy(self, status: int) -> str:
        if status == HTTPStatus.UNAUTHORIZED:
            return f'check the token in connection "{self._connection}"'
        if status == HTTPStatus.FORBIDDEN:
            return f'let the token in connection "{self._connection}" read {self.entity}'
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return "the source wants fewer requests: give its pool fewer slots, or run again later"
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return "the source itself fails: run again when it is well"
        return f'check the contract\'s endpoint and the host in connection "{self._connection}"'

    def _broken(self, error: Exception) -> _Failure:
        """What became of a request that got no complete answer. Never quotes `error`, whose text can hold the URL."""
        host = f'check the host in connection "{self._connection}"'
        later = "run again when the source can be reached"
        kinds: list[tuple[tuple[type[BaseException], ...], _Failure]] = [
            (
                (UnicodeError,),
                _Failure(
                    "was not asked: a header cannot be sent",
                    f'look at connection "{self._connection}"',
                    retryable=False,
                ),
            ),
            (
                (ssl.SSLCertVerificationError,),
                _Failure("has a certificate that is not trusted", f"{host} and the certificates", retryable=False),
            ),
            ((socket.gaierror,), _Failure("could not be asked: its host is not known", host, retryable=True)),
            ((ConnectionRefusedError,), _Failure("refused the connection", host, retryable=True)),
            (
                (requests.ConnectTimeout,),
                _Failure(f"did not accept a connection in {CONNECT_SECONDS:.0f} s", host, retryable=True),
            ),
            (
                (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError),
                _Failure(f"sent nothing for {READ_SECONDS:.0f} s", later, retryable=True),
            ),
            (
                (IncompleteRead, urllib3.exceptions.InvalidChunkLength),
                _Failure("broke off in the middle of its answer", later, retryable=True),
            ),
            (
                (urllib3.exceptions.DecodeError,),
                _Failure("sent a body whose compression is damaged", later, retryable=True),
            ),
            (
                (urllib3.exceptions.ProtocolError, ConnectionError),
                _Failure("broke the connection", later, retryable=True),
            ),
            ((ValueError,), _Failure("leads to a URL that cannot be requested", host, retryable=False)),
        ]
        causes = list(_causes(error))
        for types, failure in kinds:
            if any(isinstance(cause, types) for cause in causes):
                return failure
        return _Failure(f"could not be asked ({type(error).__name__})", later, retryable=True)


def http_date(value: str | None) -> datetime | None:
    """The aware UTC time of an HTTP date, or None for anything else."""
    try:
        parsed = parsedate_to_datetime(value or "")
    except (ValueError, OverflowError):
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port as `requests` will connect to them. Raises ValueError if it would not, or with a user."""
    url = requests.Request("GET", url).prepare().url or ""
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme]


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """The body, decompressed, as it arrives: unlike `iter_content`, no piece waits until it is full.

    Raises urllib3's `ProtocolError` when the body is shorter than announced.
    """
    while chunk := response.raw.read1(_CHUNK, decode_content=True):
        yield chunk


def _excerpt(response: requests.Response, deadline: float) -> str:
    """The beginning of an error's body on one line; what can be had of it."""
    body = b""
    try:
        for chunk in _chunks(response):
            body += chunk
            if len(body) > _CHUNK or time.monotonic() > deadline:
                break
    except urllib3.exceptions.HTTPError:
        log.debug("the body of an error broke off")
    return " ".join(body.decode("utf-8", "replace").split())


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the answer's `Retry-After`, 0 to 300; None without one that can be read.

    A date is taken relative to the answer's own `Date`, as the two clocks may differ.
    """
    value = headers.get("Retry-After", "")
    at = http_date(value)
    if at is not None:
        seconds = (at - (http_date(headers.get("Date")) or datetime.now(UTC))).total_seconds()
    else:
        try:
            seconds = float(value)
        except ValueError:
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if isfinite(seconds) else None


def _outcome(state: tenacity.RetryCallState) -> _Failure:
    if state.outcome is None or not isinstance(failure := state.outcome.result(), _Failure):
        raise TypeError("only a failure is tried again")
    return failure


_backoff = tenacity.wait_exponential_jitter(multiplier=1, max=60, jitter=1)


def _wait(state: tenacity.RetryCallState) -> float:
    retry_after = _outcome(state).retry_after
    if retry_after is None:
        return _backoff(state)
    return retry_after + uniform(0, 1)  # noqa: S311 - spreads the clients that were sent away together


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and everything that it was made from; `requests` and urllib3 wrap by argument and by `reason`."""
    seen: set[int] = set()
    rest: list[object] = [error]
    while rest:
        cause = rest.pop()
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            rest += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]

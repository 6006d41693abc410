"""Secrets taken out of what people read: errors and logs."""

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote_plus, urlsplit

from phonenumbers import Leniency, PhoneNumberMatcher

__all__ = ["mask_personal_data", "mask_secrets", "mask_url", "mask_values", "sent_secrets", "sentence"]

MASK = "***"

_SECRET_NAME = re.compile(r"token|key|secret|passw|pwd|sig|auth|credential|session|jwt|bearer|hmac", re.IGNORECASE)
_PUBLIC_HEADERS = {"accept", "accept-encoding", "accept-language", "connection", "content-type", "host", "user-agent"}
_SHORTEST = 4  # a shorter "secret" would black out ordinary text

_PHONE_REGION = "US"  # whose national format is known beside the international one
_LONGEST = 20_000  # of an error's first line; what is further on is not looked at

_WEBHOOK = re.compile(r"""(?:https?://)?hooks\.slack(?:-gov)?\.com/[^\s"'<>)]*|/services/\w+/\w+/\w+""")
_LOCATION = re.compile(  # a URL, or a path with a query
    r"""(?:(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,30}://|(?<![^\s"'<>(=])/[^\s"'<>?]*+\?)[^\s"'<>]*""", re.IGNORECASE
)
_KEPT = r"token|secret|passw(?:or)?d|(?:api|access|account)[_-]?key"
_ASSIGNED = re.compile(
    rf"""((?:{_KEPT}|pwd|passphrase|credentials?)["']?\s*=\s*"""
    r"""|(?:passw(?:or)?d|passphrase)\s*:\s*"""
    r"""|(?:(?:authorization|cookie)["']?|(?<![\w-])x-[\w-]{0,60}?(?:key|token|secret)["']?)\s*[=:]\s*(?:(?:token|digest|apikey|negotiate)\s+)?"""
    rf"""|["'][\w-]*(?:{_KEPT})["']\s*:\s*)(?!\*{{3}})("[^"]*"|'[^']*'|[^\s"',;)}}]+)""",
    re.IGNORECASE,
)
_COOKIES = re.compile(r"(?<![\w-])(cookie:\s*)[^\s\"'*][^\"'\n]*", re.IGNORECASE)
_SLACK_TOKEN = re.compile(r"\b(?:xox[a-z]|xapp)-[\w-]+")
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_WORD = r"""\s@"(),:;<>\[\]\\/=?&'"""  # ends what stands before the @ of an address
_EMAIL = re.compile(
    rf"""://\*{{3}}@  # what mask_url has left
    |(?P<address>
       (?:"[^"\s]*"|(?<![^{_WORD}])[^{_WORD}]++(?<!%40)|[^\s@])
       (?:@|%40)
       (?:\[[\da-f.:]+\]|[\w-]+(?:\.[\w-]+)*)
     )""",
    re.IGNORECASE | re.VERBOSE,
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]")  # blanks are not among them


def mask_url(url: str) -> str:
    """`url` without its user information, its fragment and the values of query parameters whose name looks secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(a URL that cannot be parsed)"
    pairs = []
    for pair in parts.query.split("&"):
        name, equals, _ = pair.partition("=")
        pairs.append(name + equals + MASK if equals and _SECRET_NAME.search(unquote_plus(name)) else pair)
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{MASK}@{host}" if "@" in parts.netloc else host
    return parts._replace(netloc=netloc, query="&".join(pairs), fragment="").geturl()


def sent_secrets(url: str, headers: Mapping[str, str | bytes]) -> set[str]:
    """What a request to `url` with `headers` carried that nobody should read, in every form that could be echoed."""
    secrets: set[str] = set()
    for name, sent in headers.items():
        if name.lower() in _PUBLIC_HEADERS:
            continue
        value = sent.decode("latin-1") if isinstance(sent, bytes) else sent
        scheme, _, credentials = value.partition(" ")
        secrets |= {value, credentials or value}
        if scheme.lower() == "basic":
            try:
                secrets.add(base64.b64decode(credentials).decode("utf-8", "replace").partition(":")[2])
            except binascii.Error:
                continue
        if name.lower() == "cookie":
            secrets |= {cookie.partition("=")[2] for cookie in value.split("; ")}
    parts = urlsplit(url)
    secrets |= {value for name, value in parse_qsl(parts.query) if _SECRET_NAME.search(name)}
    return {secret for secret in secrets if len(secret) >= _SHORTEST}


def mask_values(text: str, secrets: set[str]) -> str:
    """`text` with every secret in it replaced, the longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def mask_secrets(text: str) -> str:
    """`text` with the secrets masked that can be told by how they are written.

    User information and secret-looking parameters of URLs, webhook URLs and tokens of Slack, `password=...` and the
    like, headers of that kind, tokens after `Bearer`.
    """
    text = _WEBHOOK.sub(MASK, text)
    text = _SLACK_TOKEN.sub(MASK, text)
    text = _LOCATION.sub(lambda found: mask_url(found[0]), text)
    text = _BEARER.sub(rf"\1 {MASK}", text)
    text = _COOKIES.sub(rf"\1{MASK}", text)
    return _ASSIGNED.sub(rf"\1{MASK}", text)


def mask_personal_data(text: str) -> str:
    """`text` with its e-mail addresses and phone numbers masked.

    Phone numbers: valid ones, with a country's prefix anywhere, without one as the USA write them, in groups: a plain
    row of digits is an id or a count more often.
    """
    text = _EMAIL.sub(lambda found: MASK if found["address"] else found[0], text)
    parts, end = [], 0
    for match in PhoneNumberMatcher(text, _PHONE_REGION, leniency=Leniency.VALID):
        if not match.raw_string.isdecimal():
            parts += [text[end : match.start], MASK]
            end = match.end
    return "".join([*parts, text[end:]])


def sentence(error: BaseException | str | None, limit: int = 500) -> str:
    """What is wrong, in one line of at most `limit` characters, without secrets and personal data.

    Of an exception's text (its class, where it has none), the first line that is not blank, white space collapsed. What
    Postgres says under DETAIL, which prints rows, is left out. Empty for None and for blank text.
    """
    text = str(error) or type(error).__name__ if isinstance(error, BaseException) else error or ""
    lines = (" ".join(line.split()) for line in _UNPRINTABLE.sub(" ", text[: 2 * _LONGEST]).splitlines())
    line = next((line for line in lines if line), "").partition(" DETAIL: ")[0]
    if len(line) > _LONGEST:
        line = line[:_LONGEST].rpartition(" ")[0]  # half an address would not be known as one
    line = mask_personal_data(mask_secrets(line))
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"

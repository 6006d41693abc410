"""Secrets taken out of what people read: errors and logs."""

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote_plus, urlsplit

__all__ = ["mask_url", "mask_values", "sent_secrets"]

MASK = "***"

_SECRET_NAME = re.compile(r"token|key|secret|passw|pwd|sig|auth|credential|session|jwt|bearer|hmac", re.IGNORECASE)
_PUBLIC_HEADERS = {"accept", "accept-encoding", "accept-language", "connection", "content-type", "host", "user-agent"}
_SHORTEST = 4  # a shorter "secret" would black out ordinary text


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

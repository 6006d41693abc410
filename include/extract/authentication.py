"""How a source is logged in to: what a connection says, as `requests` wants it."""

import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable
from urllib.parse import parse_qsl, urlencode, urlsplit

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from requests import PreparedRequest
from requests.auth import AuthBase, HTTPBasicAuth

from include.extract.pagination import PageRequest

__all__ = ["BearerAuth", "HeaderKeyAuth", "OAuth2Auth", "QueryKeyAuth", "RenewableAuth", "TokenError", "authentication"]

TOKEN_SECONDS = 30.0
LEEWAY_SECONDS = 60.0
_TEMPORARY = 500


class TokenError(Exception):
    """The login did not give a token. The message holds no secret."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


@runtime_checkable
class RenewableAuth(Protocol):
    """Credentials that can be had anew when the source refuses them."""

    def renew(self) -> bool:
        """Whether the next request will carry others."""


class BearerAuth(AuthBase):
    """Sends a bearer token (RFC 6750, 2.1)."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class HeaderKeyAuth(AuthBase):
    """Sends an API key in a header of the source's choice, behind a `prefix` such as `"Token "`."""

    def __init__(self, name: str, key: str, prefix: str = "") -> None:
        self._name = name
        self._value = prefix + key

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers[self._name] = self._value
        return request


class QueryKeyAuth(AuthBase):
    """Sends an API key in the query."""

    def __init__(self, name: str, key: str) -> None:
        self._name = name
        self.key = key

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        parts = urlsplit(request.url or "")
        query = urlencode([*self._others(parts.query), (self._name, self.key)])
        request.url = parts._replace(query=query).geturl()
        return request

    def removed(self, request: PageRequest) -> PageRequest:
        """The request without the key: next links echo it."""
        parts = urlsplit(request.url)
        query = urlencode(self._others(parts.query), safe=":,/")
        return PageRequest(parts._replace(query=query).geturl(), request.body)

    def _others(self, query: str) -> list[tuple[str, str]]:
        return [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] != self._name]


class OAuth2Auth(AuthBase):
    """Sends a token that it gets by client credentials (RFC 6749, 4.4), a new one before the old one expires.

    `token_url` is asked with the client's id and secret, as basic authentication or, with `in_body`, in the body; with
    the certificates and proxies of `session`.
    """

    def __init__(
        self,
        client_id: str,
        client_secret: str,
        session: requests.Session,
        *,
        token_url: str,
        scope: str | None = None,
        in_body: bool = False,
    ) -> None:
        method = "client_secret_post" if in_body else "client_secret_basic"
        transport = {name: getattr(session, name) for name in ("verify", "cert", "proxies", "trust_env")}
        self._session = OAuth2Session(
            client_id, client_secret, token_endpoint_auth_method=method, scope=scope, **transport
        )
        self._token_url = token_url
        self._renew_at = 0.0
        self._token = ""
        self._lock = threading.Lock()

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        with self._lock:
            if time.time() >= self._renew_at:
                self._fetch()
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def renew(self) -> bool:
        """Forget the token: the source has revoked it, or its clock says that it has expired."""
        with self._lock:
            self._renew_at = 0.0
        return True

    def _fetch(self) -> None:
        try:
            token = self._session.fetch_token(
                self._token_url, grant_type="client_credentials", timeout=TOKEN_SECONDS, allow_redirects=False
            )
            self._token = str(token["access_token"])
            lifetime = float(token.get("expires_in") or "inf")
        except AuthlibBaseError as error:
            raise TokenError(f"its token_url refused a token ({error.error})", retryable=False) from None
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            raise TokenError(f"its token_url answered {status}", retryable=status >= _TEMPORARY) from None
        except requests.RequestException as error:
            raise TokenError(f"its token_url could not be asked ({type(error).__name__})", retryable=True) from None
        except (KeyError, TypeError, ValueError):
            raise TokenError("its token_url answered with something else than a token", retryable=False) from None
        self._renew_at = time.time() + lifetime - min(LEEWAY_SECONDS, lifetime / 2)


def authentication(
    login: str | None, password: str | None, options: Mapping[str, Any] | None, session: requests.Session
) -> AuthBase | None:
    """What a connection's login, password and extra `auth` ask for, for the `session` that the connection makes.

    Without `options`: basic authentication with a login, a bearer token with a password alone, else nothing. With them,
    by their `type`:

    - `{"type": "header", "name": "X-API-Key", "prefix": ""}`: the password in that header
    - `{"type": "query", "name": "api_key"}`: the password in that parameter
    - `{"type": "oauth2", "token_url": "https://...", "scope": "...", "in_body": false}`: client credentials, the id as
      login, the secret as password

    Raises ValueError for options that are none of these, without quoting a secret.
    """
    if options is None:
        if login:
            return HTTPBasicAuth(login, password or "")
        return BearerAuth(password) if password else None
    if not isinstance(options, Mapping):
        raise ValueError('its extra "auth" must be an object with a "type"')  # noqa: TRY004 - as for its contents
    kind, rest = options.get("type"), {name: value for name, value in options.items() if name != "type"}
    try:
        if kind == "header":
            return HeaderKeyAuth(key=password or "", **rest)
        if kind == "query":
            return QueryKeyAuth(key=password or "", **rest)
        if kind == "oauth2":
            return OAuth2Auth(login or "", password or "", session, **rest)
    except TypeError:
        raise ValueError(f'its extra "auth" of type {kind} has not the names that it needs: {sorted(rest)}') from None
    raise ValueError(f'its extra "auth" has the type {kind!r}: it may be "header", "query" or "oauth2"')

"""Who is asking: an account by its session cookie, a program by its API key, a visitor by a random cookie.

Whoever is known is counted against the rate limits at once, so that no route can forget them.
"""

import hashlib
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from serving.backend import Product, TheBackend, TheProduct
from serving.errors import ApiError
from serving.stores.accounts import KEY_PREFIX, User
from serving.stores.limits import Use
from serving.stores.sessions import LIFETIME, Session

SESSION_COOKIE = "colloquy_session"
VISITOR_COOKIE = "colloquy_visitor"
VISITOR_LIFETIME_S = 180 * 24 * 3600
MINUTE_S, HOUR_S = 60, 3600
LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")

session_cookie = APIKeyCookie(name=SESSION_COOKIE, scheme_name="session", auto_error=False)
bearer = HTTPBearer(scheme_name="api_key", auto_error=False)


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may use the product. `session` for accounts, `key_id` for programs, neither for visitors."""

    user_id: str
    session: Session | None = None
    key_id: str = ""


def address_of(request: Request) -> str:
    """The caller's address as limits count it: IPv6 by its network, of which one household has many addresses."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(address if address.version == 4 else ipaddress.ip_network((address, 64), strict=False))


async def count(product: Product, uses: Sequence[Use]) -> None:
    """Count uses against their limits.

    Raises:
        ApiError: one is used up.
    """
    if wait_s := await product.stores.limits.take(uses):
        raise ApiError(429, f"too many requests; try again in {wait_s} s", code="rate_limited", retry_after_s=wait_s)


async def known_address(request: Request, backend: TheBackend, product: TheProduct) -> None:
    """Count a request that needs no identity."""
    await count(product, [_of_address(request, backend.release.chat.access.address_requests_per_minute)])


def _of_address(request: Request, limit: int) -> Use:
    return Use("address", address_of(request), limit, MINUTE_S)


async def _known(request: Request, backend: TheBackend, product: Product, caller: Caller) -> Caller:
    access = backend.release.chat.access
    who = caller.key_id or caller.user_id
    by_address = _of_address(request, access.address_requests_per_minute)
    await count(product, [Use("user", who, access.requests_per_minute, MINUTE_S), by_address])
    request.state.user_id = caller.user_id
    return caller


def _secure(request: Request) -> bool:
    """Whether cookies go over TLS only: always, but on a person's own machine."""
    host = request.url.hostname or ""
    return request.url.scheme == "https" or not (host in LOOPBACK or host.endswith(".localhost"))


def set_session(request: Request, response: Response, token: str) -> None:
    """Log the browser in. The visitor's cookie goes: what it held has been handed over."""
    _set_cookie(request, response, SESSION_COOKIE, token, int(LIFETIME.total_seconds()))
    response.delete_cookie(VISITOR_COOKIE)


def _set_cookie(request: Request, response: Response, name: str, value: str, max_age: int) -> None:
    response.set_cookie(name, value, max_age=max_age, httponly=True, samesite="lax", secure=_secure(request))


def visitor_of(token: str) -> str:
    """The user id of a visitor's cookie; the cookie itself is never stored."""
    return "visitor-" + hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def visitor_id(request: Request) -> str | None:
    """The visitor whom the browser was before it logged in."""
    token = request.cookies.get(VISITOR_COOKIE)
    return visitor_of(token) if token else None


async def current_user(
    request: Request,
    response: Response,
    backend: TheBackend,
    product: TheProduct,
    token: Annotated[str | None, Depends(session_cookie)],
) -> Caller:
    """The account that is logged in, or the visitor where visitors are allowed.

    Raises:
        ApiError: a session that has ended, or no session where accounts are needed.
    """
    if token:
        session = await product.stores.sessions.find(token)
        if session is None:
            await known_address(request, backend, product)
            raise ApiError(401, "the session has ended; log in again", code="session_ended", forget=SESSION_COOKIE)
        return await _known(request, backend, product, Caller(session.user_id, session))
    if not backend.release.chat.access.visitors:
        await known_address(request, backend, product)
        raise ApiError(401, "log in first", code="login_required")
    visitor = request.cookies.get(VISITOR_COOKIE)
    if not visitor:
        visitor = secrets.token_urlsafe(32)
        _set_cookie(request, response, VISITOR_COOKIE, visitor, VISITOR_LIFETIME_S)
    return await _known(request, backend, product, Caller(visitor_of(visitor)))


CurrentUser = Annotated[Caller, Depends(current_user)]


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """An account and the session it uses now."""

    user: User
    session: Session


async def account(caller: CurrentUser, product: TheProduct) -> LoggedIn:
    """The account that is logged in; a visitor is not enough.

    Raises:
        ApiError: nobody is logged in.
    """
    user = await product.stores.accounts.by_id(caller.user_id) if caller.session else None
    if user is None or caller.session is None:
        raise ApiError(401, "log in first", code="login_required")
    return LoggedIn(user, caller.session)


Account = Annotated[LoggedIn, Depends(account)]


async def administrator(account: Account) -> LoggedIn:
    """An account that may see figures and flagged messages.

    Raises:
        ApiError: it may not.
    """
    if not account.user.admin:
        raise ApiError(403, "only administrators may see this")
    return account


Administrator = Annotated[LoggedIn, Depends(administrator)]


async def program(
    request: Request,
    backend: TheBackend,
    product: TheProduct,
    shown: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Caller:
    """The owner of the API key, or a visitor known by address where visitors are allowed.

    OpenAI's clients always send some key, so one that is not of this server's form counts as none.

    Raises:
        ApiError: the key is not valid any more, or there is none where one is needed.
    """
    secret = shown.credentials if shown else ""
    if secret.startswith(KEY_PREFIX):
        key = await product.stores.accounts.key(secret)
        if key is not None:
            return await _known(request, backend, product, Caller(key.user_id, key_id=key.key_id))
    if secret.startswith(KEY_PREFIX) or not backend.release.chat.access.visitors:
        await known_address(request, backend, product)
        raise ApiError(401, "this API key is not valid; make one on the chat page", code="invalid_api_key")
    digest = hashlib.sha256(address_of(request).encode()).hexdigest()[:32]
    return await _known(request, backend, product, Caller(f"address-{digest}"))


Program = Annotated[Caller, Depends(program)]

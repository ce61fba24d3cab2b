"""Who is asking: an anonymous visitor, known by a random cookie whose hash is the user id in the store."""

import hashlib
import secrets
from typing import Annotated

from fastapi import Depends, Request, Response

COOKIE = "colloquy_session"
LIFETIME_S = 180 * 24 * 3600


def user_of(token: str) -> str:
    """The user id of a cookie; the cookie itself is never stored."""
    return "visitor-" + hashlib.sha256(token.encode()).hexdigest()[:32]


def current_user(request: Request, response: Response) -> str:
    """The visitor's user id; a first visit gets its cookie with the answer."""
    token = request.cookies.get(COOKIE)
    if not token:
        token = secrets.token_urlsafe(32)
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, token, max_age=LIFETIME_S, httponly=True, samesite="lax", secure=secure)
    return user_of(token)


CurrentUser = Annotated[str, Depends(current_user)]

"""`/api/register`, `/api/login`, `/api/logout` and `/api/me`: accounts, from sign-up to deletion.

No answer and no duration says whether an e-mail address has an account. Without a mail server to confirm addresses,
only registering one and then trying to log in does; the limit on sign-ins makes that slow.
"""

import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AfterValidator, Field, StrictBool

from serving.backend import Product, TheBackend, TheProduct
from serving.errors import ApiError
from serving.exports import everything_of
from serving.identity import (
    HOUR_S,
    SESSION_COOKIE,
    Account,
    CurrentUser,
    LoggedIn,
    address_of,
    count,
    known_address,
    set_session,
    visitor_id,
)
from serving.schemas import Body, example
from serving.stores.accounts import User
from serving.stores.documents import now
from serving.stores.limits import Use
from serving.stores.tables import EMAIL_CHARACTERS

router = APIRouter(prefix="/api", tags=["accounts"])

DEVICE_CHARACTERS = 200
EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+\.[^@\s.\x00-\x1f\x7f]+")


def _email(text: str) -> str:
    if not EMAIL.fullmatch(text.strip()):
        raise ValueError("this is no e-mail address")
    return text.strip().lower()


Email = Annotated[str, Field(max_length=EMAIL_CHARACTERS), AfterValidator(_email)]
# Length is what helps (NIST SP 800-63B, 3.1.1); the upper bound keeps a hash from being work without end.
Password = Annotated[str, Field(min_length=8, max_length=256)]


class Credentials(Body):
    """What registering and logging in ask for."""

    model_config = example(email="ada@example.org", password="correct horse battery")
    email: Email
    password: Password


class Preferences(Body):
    """What a person may choose. `share_conversations` is the consent to learn from them, and off until given."""

    model_config = example(theme="dark", share_conversations=False)
    theme: Literal["system", "light", "dark"] = "system"
    share_conversations: StrictBool = False


class NewPassword(Body):
    model_config = example(current="correct horse battery", new="staple battery horse")
    current: Password
    new: Password


class Confirmation(Body):
    """Deleting an account asks for the password again."""

    model_config = example(password="correct horse battery")
    password: Password


class Me(Body):
    """Who is asking; `email` is null for a visitor."""

    user_id: str
    email: str | None
    preferences: Preferences
    created_at: datetime | None
    last_login: datetime | None
    admin: bool

    @classmethod
    def of(cls, user: User) -> Self:
        return cls(
            user_id=user.user_id,
            email=user.email,
            preferences=Preferences.model_validate(user.preferences),
            created_at=user.created_at,
            last_login=user.last_login,
            admin=user.admin,
        )


async def _count_sign_in(request: Request, backend: TheBackend, product: Product, email: str) -> None:
    limit = backend.release.chat.access.sign_ins_per_hour
    uses = [Use("sign-in-address", address_of(request), limit, HOUR_S), Use("sign-in-email", email, limit, HOUR_S)]
    await count(product, uses)


async def _require_password(request: Request, backend: TheBackend, product: Product, who: LoggedIn, text: str) -> None:
    await _count_sign_in(request, backend, product, who.user.email)
    if not await product.passwords.matches(who.user.auth_credentials, text):
        raise ApiError(403, "the password is wrong", "password", "wrong_password")


@router.post("/register", status_code=204, dependencies=[Depends(known_address)])
async def register(body: Credentials, request: Request, backend: TheBackend, product: TheProduct) -> None:
    """Make an account, unless the address has one; the answer is the same. Log in next."""
    await _count_sign_in(request, backend, product, body.email)
    await product.stores.accounts.add(body.email, await product.passwords.credentials(body.password))


@router.post("/login", dependencies=[Depends(known_address)])
async def login(
    body: Credentials, request: Request, response: Response, backend: TheBackend, product: TheProduct
) -> Me:
    """Log in on this device. What a visitor did here goes with them to the account."""
    await _count_sign_in(request, backend, product, body.email)
    accounts = product.stores.accounts
    user = await accounts.by_email(body.email)
    if not await product.passwords.matches(user.auth_credentials if user else None, body.password) or user is None:
        raise ApiError(401, "e-mail address or password is wrong", code="wrong_credentials")
    if product.passwords.outdated(user.auth_credentials):
        credentials = await product.passwords.credentials(body.password)
        await accounts.change(user.user_id, auth_credentials=credentials)
    await accounts.change(user.user_id, last_login=now())
    if visitor := visitor_id(request):
        await product.stores.documents.adopt(visitor, user.user_id)
    device = request.headers.get("user-agent", "")[:DEVICE_CHARACTERS]
    token, _ = await product.stores.sessions.open(user.user_id, device)
    set_session(request, response, token)
    return Me.of(user)


@router.post("/logout", status_code=204)
async def logout(caller: CurrentUser, response: Response, product: TheProduct) -> None:
    """End the session of this device."""
    if caller.session:
        await product.stores.sessions.revoke(caller.user_id, caller.session.session_id)
    response.delete_cookie(SESSION_COOKIE)


@router.get("/me")
async def read_me(caller: CurrentUser, product: TheProduct) -> Me:
    """The account that is logged in, or the visitor."""
    user = await product.stores.accounts.by_id(caller.user_id) if caller.session else None
    if user is not None:
        return Me.of(user)
    nobody = Preferences()
    return Me(user_id=caller.user_id, email=None, preferences=nobody, created_at=None, last_login=None, admin=False)


@router.put("/me/preferences")
async def change_preferences(body: Preferences, account: Account, product: TheProduct) -> Preferences:
    """Replace the preferences."""
    await product.stores.accounts.change(account.user.user_id, preferences=body.model_dump())
    return body


@router.put("/me/password", status_code=204)
async def change_password(
    body: NewPassword, request: Request, account: Account, backend: TheBackend, product: TheProduct
) -> None:
    """Change the password and log every other device out."""
    await _require_password(request, backend, product, account, body.current)
    credentials = await product.passwords.credentials(body.new)
    await product.stores.accounts.change(account.user.user_id, auth_credentials=credentials)
    await product.stores.sessions.revoke_all(account.user.user_id, but=account.session.session_id)


@router.get("/me/export")
async def export_me(account: Account, product: TheProduct, response: Response) -> dict[str, Any]:
    """Everything that is kept of the account, as a file."""
    response.headers["Content-Disposition"] = 'attachment; filename="colloquy.json"'
    return {"account": Me.of(account.user).model_dump(mode="json")} | await everything_of(
        product.stores, account.user.user_id
    )


@router.post("/me/delete", status_code=204)
async def delete_me(
    body: Confirmation,
    request: Request,
    response: Response,
    account: Account,
    backend: TheBackend,
    product: TheProduct,
) -> None:
    """Delete the account with conversations, messages, feedback, keys, sessions and its lines in the logs."""
    await _require_password(request, backend, product, account, body.password)
    user_id = account.user.user_id
    await product.stores.sessions.revoke_all(user_id)  # first, so that no device writes anything meanwhile
    await backend.telemetry.write()
    await product.stores.contexts.forget(await product.stores.documents.delete_user(user_id))
    await product.stores.accounts.delete(user_id)
    request.state.user_id = ""  # this request itself leaves no trace either
    response.delete_cookie(SESSION_COOKIE)

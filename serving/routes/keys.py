"""`/api/keys` and `/api/usage`: API keys, shown once, and the tokens that they used."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field

from serving.backend import TheBackend, TheProduct
from serving.errors import ApiError
from serving.identity import Account, CurrentUser
from serving.schemas import Body, Id, Line, example
from serving.stores.accounts import ApiKey

router = APIRouter(prefix="/api", tags=["keys and usage"])

MAX_KEYS = 20
MAX_DAYS = 366


class NewKey(Body):
    model_config = example(name="my notebook")
    name: Annotated[Line, Field(min_length=1, max_length=100)]


class Key(Body):
    """A key as it can be told from others; the key itself is known to its owner only."""

    key_id: str
    name: str
    shown: str
    created_at: datetime
    last_used: datetime | None

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        return cls(
            key_id=key.key_id, name=key.name, shown=key.shown, created_at=key.created_at, last_used=key.last_used
        )


class Keys(Body):
    keys: list[Key]


class CreatedKey(Key):
    """The only answer that ever holds the key."""

    key: str


class Day(Body):
    """What one key used on one day in UTC; `key_id` is empty for the chat page."""

    day: date
    key_id: str
    requests: int
    prompt_tokens: int
    completion_tokens: int


class Usage(Body):
    tokens_per_day: int | None
    days: list[Day]


@router.post("/keys", status_code=201)
async def create_key(body: NewKey, account: Account, product: TheProduct) -> CreatedKey:
    """Make a key for programs. It is shown this once."""
    if len(await product.stores.accounts.keys(account.user.user_id)) >= MAX_KEYS:
        raise ApiError(409, f"an account has at most {MAX_KEYS} keys; delete one first", code="too_many_keys")
    secret, key = await product.stores.accounts.add_key(account.user.user_id, body.name)
    return CreatedKey(key=secret, **Key.of(key).model_dump())


@router.get("/keys")
async def list_keys(account: Account, product: TheProduct) -> Keys:
    """The account's keys, the oldest first."""
    return Keys(keys=[Key.of(key) for key in await product.stores.accounts.keys(account.user.user_id)])


@router.delete("/keys/{key_id}", status_code=204)
async def delete_key(key_id: Id, account: Account, product: TheProduct) -> None:
    """Take a key out of use at once."""
    if not await product.stores.accounts.delete_key(account.user.user_id, key_id):
        raise ApiError(404, f"there is no key {key_id!r}", "key_id")


@router.get("/usage")
async def read_usage(
    caller: CurrentUser,
    backend: TheBackend,
    product: TheProduct,
    days: Annotated[int, Query(ge=1, le=MAX_DAYS)] = 30,
) -> Usage:
    """Tokens by day and key, the newest day first, and the daily quota if there is one."""
    since = datetime.now(UTC).date() - timedelta(days=days - 1)
    used = await product.stores.accounts.usage(caller.user_id, since)
    return Usage(
        tokens_per_day=backend.release.chat.access.tokens_per_day, days=[Day(**each._asdict()) for each in used]
    )

"""`/api/sessions`: the devices on which an account is logged in, to look at and to end."""

from datetime import datetime

from fastapi import APIRouter

from serving.backend import TheProduct
from serving.errors import ApiError
from serving.identity import Account
from serving.schemas import Body, Id

router = APIRouter(prefix="/api/sessions", tags=["sessions"])


class Device(Body):
    """One session; `current` is the one that asks."""

    session_id: str
    device_info: str
    created_at: datetime
    last_active: datetime
    expires_at: datetime
    current: bool


class Devices(Body):
    sessions: list[Device]


@router.get("")
async def list_sessions(account: Account, product: TheProduct) -> Devices:
    """Everywhere that the account is logged in, the last used first."""
    found = await product.stores.sessions.of_user(account.user.user_id)
    return Devices(
        sessions=[
            Device(
                session_id=session.session_id,
                device_info=session.device_info,
                created_at=session.created_at,
                last_active=session.last_active,
                expires_at=session.expires_at,
                current=session.session_id == account.session.session_id,
            )
            for session in found
        ]
    )


@router.delete("/{session_id}", status_code=204)
async def revoke_session(session_id: Id, account: Account, product: TheProduct) -> None:
    """Log one device out."""
    if not await product.stores.sessions.revoke(account.user.user_id, session_id):
        raise ApiError(404, f"there is no session {session_id!r}", "session_id")

"""`GET /api/status`: what is served here, and whether it answers."""

from fastapi import APIRouter

from serving.backend import TheBackend
from serving.schemas import Body

router = APIRouter(prefix="/api/status", tags=["status"])


class Status(Body):
    """Model version, bento, where its labels came from, the gate's verdict and who overruled it, and the load."""

    ready: bool
    reason: str | None
    bento: str
    model: str
    model_version: int
    profile: str
    simulated_labels: bool
    verdict: str
    promoted_by: str | None
    promoted_reason: str | None
    git_commit: str
    lock_hash: str
    context_tokens: int
    visitors: bool
    running: int
    waiting: int


@router.get("")
async def read_status(backend: TheBackend) -> Status:
    """What is served, whether it is ready and if not why, and whether visitors may chat."""
    release = backend.release
    problem = await backend.not_ready()
    generations = backend.product.assistant.generations if backend.product else None
    return Status(
        ready=problem is None,
        reason=problem,
        bento=release.bento,
        model=release.model_id,
        model_version=release.version,
        profile=release.profile,
        simulated_labels=release.simulated_labels,
        verdict=release.verdict,
        promoted_by=release.promoted_by,
        promoted_reason=release.promoted_reason,
        git_commit=release.git_commit,
        lock_hash=release.lock_hash,
        context_tokens=release.chat.context_tokens,
        visitors=release.chat.access.visitors,
        running=generations.running if generations else 0,
        waiting=generations.waiting if generations else 0,
    )

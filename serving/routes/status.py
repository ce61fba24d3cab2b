"""`GET /api/status`: what is served here, and whether it answers."""

from typing import Any

from fastapi import APIRouter

from serving.backend import TheBackend

router = APIRouter(prefix="/api/status", tags=["status"])


@router.get("")
async def read_status(backend: TheBackend) -> dict[str, Any]:
    """Model version, bento, where its labels came from, the gate's verdict and who overruled it, and the load."""
    release = backend.release
    problem = await backend.not_ready()
    product = backend.product
    return {
        "ready": problem is None,
        "reason": problem,
        "bento": release.bento,
        "model": release.model_id,
        "model_version": release.version,
        "profile": release.profile,
        "simulated_labels": release.simulated_labels,
        "verdict": release.verdict,
        "promoted_by": release.promoted_by,
        "promoted_reason": release.promoted_reason,
        "git_commit": release.git_commit,
        "lock_hash": release.lock_hash,
        "context_tokens": release.chat.context_tokens,
        "running": product.assistant.generations.running if product else 0,
        "waiting": product.assistant.generations.waiting if product else 0,
    }

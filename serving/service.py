"""The BentoML service: opens model, moderation and stores of its own bento and serves the application over them."""

import asyncio
from pathlib import Path

import bentoml

from serving.app import create_app
from serving.assistant import Assistant
from serving.backend import Backend, Product
from serving.moderation import POLICY_FILE, Moderation, read_policy
from serving.passwords import Passwords
from serving.settings import MODERATION_FOLDER, SOURCE, Release, address, read_release
from serving.stores.open import Stores

ANSWER_TIMEOUT_S = 600  # of a plain reply; a started stream is never cut
WARM_UP = [{"role": "user", "content": "Hello"}]


def load_assistant(release: Release) -> Assistant:
    """Load weights and classifier, and let both work once, so that the first reader does not wait for them."""
    from pipelines.model.engine import Sampling, TransformersEngine
    from pipelines.model.moderation import load_moderator

    policy = read_policy(POLICY_FILE, release.chat.moderation_threshold)
    moderation = Moderation(load_moderator(SOURCE / MODERATION_FOLDER), policy)
    folder = Path(bentoml.models.get(release.model).path)
    engine = TransformersEngine.load(folder, release.chat.dtype, batch_size=1)
    engine.generate([engine.render(WARM_UP)], [Sampling(max_new_tokens=1, temperature=0.0, top_p=1.0, seed=0)])
    return Assistant(engine, moderation, release.chat)


async def open_product(release: Release) -> Product:
    """Everything that answers; the stores are asked first, since they may still be starting."""
    stores = Stores.at(address("MONGODB_URL"), address("SQL_URL"), address("REDIS_URL"))
    try:
        await stores.prepare()
        assistant = await asyncio.to_thread(load_assistant, release)
    except BaseException:
        await stores.close()
        raise
    return Product(assistant, stores, Passwords())


app = create_app(read_release, open_product)


@bentoml.service(
    name="colloquy",
    workers=1,
    traffic={"timeout": ANSWER_TIMEOUT_S},
    logging={"access": {"skip_paths": ["/metrics", "/healthz", "/livez", "/readyz", "/api/status"]}},
)
@bentoml.asgi_app(app, path="/")
class Colloquy:
    """One worker with the model in it; BentoML adds /livez, /readyz and /metrics."""

    async def __is_ready__(self) -> bool:
        backend: Backend = app.state.backend
        return await backend.not_ready() is None

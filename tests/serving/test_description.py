"""The API's description is true: schemathesis sends what it allows and what it does not, to every operation."""

import contextlib
from collections import Counter

import anyio
import httpx
import pytest

from serving.stores import sql
from serving.stores.accounts import Accounts
from tests.serving.conftest import Served
from tests.serving.test_accounts import ADA

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

EXAMPLES = 15  # of each operation, once valid and once not
ENDS_THE_SESSION = ("/api/logout", "/api/me/delete", "/api/me/password")


@pytest.fixture
def headers(served: Served) -> dict[str, str]:
    """An administrator's cookie and API key."""
    with httpx.Client(base_url=served.url, timeout=60) as client:
        client.post("/api/register", json=ADA)
        user_id = client.post("/api/login", json=ADA).json()["user_id"]
        key = client.post("/api/keys", json={"name": "x"}).json()["key"]
        cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())

    async def make_administrator() -> None:
        accounts = Accounts(sql.open_engine(served.parts.sql_url))
        await accounts.set_admin(user_id, True)
        await accounts.close()

    anyio.run(make_administrator)
    return {"Cookie": cookies, "Authorization": f"Bearer {key}"}


def test_every_operation_does_what_the_description_says(served: Served, headers: dict[str, str]):
    import hypothesis
    from schemathesis.specs.openapi import checks

    not_asked = [
        checks.ignored_auth,  # test_access asks it of every operation
        checks.positive_data_acceptance,  # an id that nobody has is well formed, and a 404
    ]
    settings = hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    asked: Counter[str] = Counter()

    def asking(sent: dict[str, str]):
        def ask(case) -> None:
            asked[case.operation.path] += 1
            case.call_and_validate(headers=sent, excluded_checks=not_asked, timeout=60)

        return ask

    too_large_is_refused_too = {"negative_data_rejection": {"expected-statuses": [*range(400, 405), 409, 413, 429]}}
    config = schemathesis.Config.from_dict({"checks": too_large_is_refused_too})
    schema = schemathesis.openapi.from_url(f"{served.url}/api/openapi.json", config=config)
    for result in schema.get_all_operations():
        operation = result.ok()
        ask = asking({} if operation.path in ENDS_THE_SESSION else headers)
        for mode in schemathesis.GenerationMode:
            with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing of it can be wrong
                settings(hypothesis.given(case=operation.as_strategy(generation_mode=mode))(ask))()
    assert len(asked) > 20 and asked.total() > 300, asked
    assert httpx.get(f"{served.url}/api/status", timeout=60).json()["ready"]

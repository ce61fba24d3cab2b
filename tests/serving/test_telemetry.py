import pytest

from serving.stores.documents import RequestLog, now
from serving.telemetry import MOST_WAITING, Telemetry
from tests.serving.fakes import MemoryStore

pytestmark = pytest.mark.anyio


def log(number: int) -> RequestLog:
    return RequestLog(f"req-{number}", now(), "", "", "GET /api/status", 0, 0.1, 200, "")


async def test_records_wait_for_a_store_that_is_away_and_keep_their_order():
    store, telemetry = MemoryStore(), Telemetry()
    telemetry.start(store)
    telemetry.add(log(0))
    store.down = True
    await telemetry.write()
    telemetry.add(log(1))
    store.down = False
    await telemetry.close()
    assert [each.request_id for each in store.logged] == ["req-0", "req-1"]


async def test_the_oldest_records_go_when_the_store_is_away_for_long():
    store, telemetry = MemoryStore(), Telemetry()
    telemetry.start(store)
    for number in range(MOST_WAITING + 5):
        telemetry.add(log(number))
    await telemetry.close()
    assert len(store.logged) == MOST_WAITING and store.logged[0].request_id == "req-5"


async def test_records_before_the_store_is_there_are_kept():
    telemetry, store = Telemetry(), MemoryStore()
    telemetry.add(log(0))
    await telemetry.write()
    telemetry.start(store)
    await telemetry.close()
    assert len(store.logged) == 1

"""Every store of the product, opened together."""

from dataclasses import dataclass
from typing import Self

from valkey.asyncio import Valkey

from serving.stores import sql, valkey
from serving.stores.accounts import Accounts
from serving.stores.contexts import Contexts
from serving.stores.documents import DocumentStore
from serving.stores.limits import Limits
from serving.stores.mongo import MongoStore
from serving.stores.sessions import Sessions


@dataclass(frozen=True, slots=True)
class Stores:
    """Documents, accounts, and what lives in Valkey."""

    documents: DocumentStore
    accounts: Accounts
    sessions: Sessions
    limits: Limits
    contexts: Contexts
    shared: Valkey

    @classmethod
    def over(cls, documents: DocumentStore, sql_url: str, redis_url: str) -> Self:
        """The stores with the document store given; nothing connects yet."""
        shared = valkey.connect(redis_url)
        accounts = Accounts(sql.open_engine(sql_url))
        return cls(documents, accounts, Sessions(shared), Limits(shared), Contexts(shared), shared)

    @classmethod
    def at(cls, mongodb_url: str, sql_url: str, redis_url: str) -> Self:
        """The stores at these addresses."""
        return cls.over(MongoStore(mongodb_url), sql_url, redis_url)

    async def prepare(self) -> None:
        """Make tables and indexes.

        Raises:
            StoreDown: one of them does not answer.
        """
        await self.ping()
        await self.accounts.prepare()
        await self.documents.prepare()

    async def ping(self) -> None:
        """Ask each store for a sign of life.

        Raises:
            StoreDown: the first that gives none.
        """
        await self.documents.ping()
        await self.accounts.ping()
        with valkey.answering():
            await self.shared.ping()

    async def close(self) -> None:
        await self.documents.close()
        await self.accounts.close()
        await self.shared.aclose()

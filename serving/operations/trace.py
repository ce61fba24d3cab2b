"""Traces a served answer back to everything that it came from.

    python -m serving.operations.trace MESSAGE        make trace MESSAGE=<id>

MESSAGE is the id of a stored answer, or of a model as the API names it (colloquy-v7). Environment:
MLFLOW_TRACKING_URI, and MONGODB_URL where a stored answer is asked for. Each step has its page in MLflow.
"""

import asyncio
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pipelines.core.errors import BadInput
from pipelines.core.lineage import Origin, Reader, tracking_address
from serving.settings import address, bento_tag
from serving.stores.documents import StoredMessage
from serving.stores.mongo import MongoStore

MODEL_ID = re.compile(r"colloquy-v(\d+)")


class Step(NamedTuple):
    """One thing that an answer came from, in words, and its page in MLflow."""

    name: str
    says: str
    page: str


def version_of(model_id: str) -> int:
    """The number in the registry of a model as the API names it.

    Raises:
        BadInput: it names no version.
    """
    found = MODEL_ID.fullmatch(model_id)
    if found is None:
        raise BadInput(f"{model_id!r} is no model of this registry; colloquy-v7 would be one")
    return int(found[1])


def model_of(message: StoredMessage | None, message_id: str) -> str:
    """Which model gave an answer.

    Raises:
        BadInput: there is no such answer.
    """
    if message is None:
        raise BadInput(
            f"there is no answer {message_id!r}: take an answer's id from the administration page or the API"
        )
    return message.metadata["model_version"]


def _percent(interval: Mapping[str, Any] | None) -> str:
    if not interval or interval.get("value") is None:
        return "not measured"
    return f"{interval['value']:.0%} ({interval['low']:.0%} to {interval['high']:.0%})"


def _released(tags: Mapping[str, str]) -> str:
    forced = tags.get("promoted_by")
    return f"{tags['verdict']}" + (f"; released by {forced} all the same: {tags['promoted_reason']}" if forced else "")


def _base_model(base: Mapping[str, Any] | None) -> str:
    parts = [str((base or {})[key]) for key in ("package", "repo", "path", "revision") if (base or {}).get(key)]
    return " at ".join(parts) or "from scratch"


def steps(origin: Origin) -> Iterator[Step]:
    """What version `origin` came from, last things first."""
    tags, lineage = origin.tags, origin.lineage
    method, labels, sft, corpus = tags["align_method"], lineage["labels"], lineage["sft"], lineage["corpus"]

    def page(stage: str) -> str:
        return origin.pages.get(stage, origin.run_page)

    simulated = f", {labels['simulated_share']:.0%} simulated" if labels["simulated_share"] else ""
    rounds = "".join(f", after the round of run {earlier['run']}" for earlier in lineage["earlier_rounds"][:1])
    sources = "; ".join(f"{source['name']} ({source['license']}, {source['origin']})" for source in corpus["sources"])
    yield Step("model version", f"{origin.number}, profile {tags['profile']}", origin.version_page)
    yield Step("bento", bento_tag(origin.number, tags["lock_hash"]), page("build_bento"))
    yield Step("gate", _released(tags), page("gate"))
    yield Step("report card", "report_card.html", f"{page('register')}/artifacts/report_card.html")
    yield Step("alignment", f"{method}, base model {_base_model(lineage['base_model'])}", page(method))
    yield Step("reward model", f"learned from {labels['labels']} rankings", page("reward_model"))
    yield Step(
        "label batch",
        f"{labels['batch_id']}, {labels['tasks']} tasks{simulated}{rounds}",
        page("sample_completions"),
    )
    for labeler, agreement in sorted(labels["labelers"].items()):
        yield Step("labeler", f"{labeler} agrees with the others: {_percent(agreement)}", page("prepare_preferences"))
    yield Step("labelers' agreement", _percent(labels["agreement"].get("pairwise")), page("prepare_preferences"))
    yield Step(
        "SFT data",
        f"{sft['version']}, {sft['demonstrations']:.0f} demonstrations, {', '.join(sft['licenses'])}",
        page("prepare_sft"),
    )
    yield Step("corpus", f"{corpus['version']}, {corpus['documents']} documents: {sources}", page("prepare_corpus"))
    yield Step("git commit", f"{tags['git_commit']}, inputs tagged {tags['git_tag']}", origin.run_page)


def in_words(found: list[Step]) -> str:
    """A line for each step and below it the page."""
    width = max(len(step.name) for step in found)
    return "\n".join(f"{step.name:<{width}}  {step.says}\n{'':<{width}}  {step.page}" for step in found)


async def stored_answer(message_id: str) -> StoredMessage | None:
    """The answer in the document store of MONGODB_URL."""
    documents = MongoStore(address("MONGODB_URL"))
    try:
        return await documents.answer(message_id)
    finally:
        await documents.close()


def trace(model_id: str, tracking_url: str) -> list[Step]:
    """What the model `model_id` came from.

    Raises:
        BadInput: the registry does not know it, or does not answer.
    """
    reader = Reader(tracking_url)
    try:
        return list(steps(reader.origin(version_of(model_id))))
    finally:
        reader.close()


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m serving.operations.trace MESSAGE")
    asked = sys.argv[1]
    try:
        model = asked if MODEL_ID.fullmatch(asked) else model_of(asyncio.run(stored_answer(asked)), asked)
        print(in_words(trace(model, tracking_address())))
    except BadInput as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

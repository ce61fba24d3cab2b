"""Lets a named person release a candidate that the gate did not pass, for a reason that everybody sees.

    python -m evals.promote --by "Ada Lovelace" --reason "…"        in the run's workspace
    make promote RUN_ID=… BY="Ada Lovelace" REASON="…"

In: the gate's verdict. Out: `.run/promotion.json`, which holds for this verdict alone, and the report card with name
and reason on top. Nothing is released by it: `register` and what follows it do that, once their tasks are cleared.
Name and reason stay in the registry, the report card, the bento and the status of the chat.
"""

import argparse
from datetime import UTC, datetime

from evals.card_facts import read_facts
from evals.gate import read_evidence
from evals.report_card import write_report_card
from pipelines.core import artifacts
from pipelines.core.digests import file_sha256
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, write_json
from pipelines.core.stage import Stage, open_stage


def promote(stage: Stage, by: str, reason: str) -> None:
    """Note who releases the candidate and why, and put it on the report card.

    Raises:
        BadInput: name or reason is missing, or the gate passed and nothing has to be forced.
    """
    verdict = read_json(artifacts.VERDICT)
    if verdict["verdict"] == "pass":
        raise BadInput(f"the gate says {verdict['text']}: clear the task register, nothing has to be forced")
    if not by.strip() or not reason.strip():
        raise BadInput(f"a promotion needs a name and a reason, got BY={by!r} and REASON={reason!r}")
    promotion = {
        "by": by.strip(),
        "reason": reason.strip(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "verdict": verdict["text"],
        "verdict_sha256": file_sha256(artifacts.VERDICT),
    }
    evidence = read_evidence(stage.params.align.method)
    facts = read_facts(stage.params)
    write_report_card(artifacts.PROMOTED_CARD, verdict, evidence.results, evidence.samples, facts, promotion)
    write_json(artifacts.PROMOTION, promotion)
    stage.tracker.set_tags({f"promotion_{key}": promotion[key] for key in ("by", "reason", "at")})
    stage.tracker.log_artifact(artifacts.PROMOTED_CARD)
    print(f"{promotion['by']} releases this candidate although the gate says {verdict['text']}: {promotion['reason']}")
    print("clear the task register of this run in Airflow, with what follows it, and it goes on")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m evals.promote", description=__doc__)
    parser.add_argument("--by", required=True, help="your name")
    parser.add_argument("--reason", required=True, help="why this candidate is released all the same")
    arguments = parser.parse_args()
    with open_stage("promote") as stage:
        promote(stage, arguments.by, arguments.reason)


if __name__ == "__main__":
    main()

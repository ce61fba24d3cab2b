"""Pairwise judging: which of two answers is better, asked in both orders; inconsistent verdicts are ties.

Three judges: a local model (by the likelier letter), an OpenAI-compatible endpoint, and, as a control, the simulated
labelers' own rule without noise. The reward model of the same run is never a judge: the policy was trained to please
it. A verdict that can't be read is unscored, never a loss.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from evals.metrics import Score, estimate
from pipelines.core.jsonl import Row
from pipelines.core.simulated_rule import rule_score

PROMPT = Path(__file__).with_name("prompts") / "pairwise.txt"
MAX_CHARACTERS = 1500  # of one answer, and of the request: keeps a judge's context bounded

Choice = Literal["first", "second", "tie"]
Outcome = Literal["win", "tie", "loss"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said, and whether it ended by itself."""

    text: str
    stopped: bool = True


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one request; a win is the candidate's."""

    id: str
    prompt: str
    candidate: Answer
    baseline: Answer
    category: str


class Question(NamedTuple):
    """A pair in one of its orders, as a judge sees it."""

    prompt: str
    first: Answer
    second: Answer


@dataclass(frozen=True, slots=True)
class Vote:
    """A judge's answer to one question; without a choice, the reason."""

    choice: Choice | None
    reason: str = ""


class Judge(Protocol):
    """Anything that can say which of two answers is better."""

    @property
    def name(self) -> str: ...

    @property
    def facts(self) -> dict[str, float]:
        """Figures about the judging itself: tokens used, bias taken out."""
        ...

    def vote(self, questions: Sequence[Question]) -> list[Vote]: ...


def question_text(question: Question) -> str:
    """The request that a model judge answers with a letter."""
    template = PROMPT.read_text(encoding="utf-8")
    parts = (question.prompt, question.first.text, question.second.text)
    prompt, first, second = (part[:MAX_CHARACTERS] for part in parts)
    return template.format(prompt=prompt, first=first, second=second).strip()


class LocalJudge:
    """A causal model that votes by how likely it finds each letter as the next token.

    Small models favour one letter whatever the answers are. The median of the log-odds over all questions, which come
    in both orders, is taken out first (batch calibration, Zhou et al. 2023) and reported as `first_bias_nats`.
    """

    def __init__(self, name: str, engine: Any, batch_size: int) -> None:
        self.name = name
        self.facts: dict[str, float] = {}
        self._engine = engine
        self._batch_size = batch_size

    def vote(self, questions: Sequence[Question]) -> list[Vote]:
        from evals.likelihood import next_token_logprobs

        if not questions:
            return []
        tokenizer, model = self._engine.tokenizer, self._engine.model
        letters = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "AB"]
        prompts = [self._engine.render([{"role": "user", "content": question_text(q)}]) for q in questions]
        prompts = [prompt[-model.config.max_position_embeddings :] for prompt in prompts]
        found = next_token_logprobs(model, prompts, letters, self._batch_size)
        return self.vote_by_odds(found[:, 0] - found[:, 1])

    def vote_by_odds(self, log_odds: NDArray[np.float64]) -> list[Vote]:
        """Votes from the log-odds of A against B, one for each question."""
        bias = float(np.median(log_odds))
        self.facts = {"first_bias_nats": round(bias, 4)}
        return [Vote("tie" if odds == bias else "first" if odds > bias else "second") for odds in log_odds.tolist()]


def parse_letter(reply: str) -> Vote:
    """The verdict in a judge's reply: a lone A or B, perhaps in brackets, or the word tie."""
    verdict = re.fullmatch(r"\W*(?:answer\s+)?([ab]|tie)\W*", reply.strip(), re.IGNORECASE)
    if not verdict:
        return Vote(None, f"the verdict {reply.strip()[:80]!r} is neither A nor B")
    return Vote({"a": "first", "b": "second", "tie": "tie"}[verdict[1].lower()])  # type: ignore[arg-type]


class EndpointJudge:
    """A model behind an OpenAI-compatible address; the key comes from OPENAI_API_KEY."""

    def __init__(self, base_url: str, model: str) -> None:
        from openai import OpenAI

        self.name = model
        self.facts: dict[str, float] = {"prompt_tokens": 0, "completion_tokens": 0}
        self._client = OpenAI(
            base_url=base_url, api_key=os.environ.get("OPENAI_API_KEY", "none"), max_retries=4, timeout=60
        )

    def vote(self, questions: Sequence[Question]) -> list[Vote]:
        return [self._vote(question) for question in questions]

    def _vote(self, question: Question) -> Vote:
        from openai import OpenAIError

        try:
            reply = self._client.chat.completions.create(
                model=self.name,
                messages=[{"role": "user", "content": question_text(question)}],
                temperature=0.0,
                max_tokens=8,
            )
        except OpenAIError as error:
            return Vote(None, f"the judge did not answer: {type(error).__name__}")
        if reply.usage:
            self.facts["prompt_tokens"] += reply.usage.prompt_tokens
            self.facts["completion_tokens"] += reply.usage.completion_tokens
        return parse_letter(reply.choices[0].message.content or "")


class RuleJudge:
    """The control: the rule that simulated labelers follow, without their noise. It reads only the surface."""

    name = "simulated labelers' rule without noise"

    def __init__(self) -> None:
        self.facts: dict[str, float] = {}

    def vote(self, questions: Sequence[Question]) -> list[Vote]:
        votes = []
        for prompt, first, second in questions:
            a, b = (rule_score(prompt, answer.text, answer.stopped) for answer in (first, second))
            votes.append(Vote("tie" if abs(a - b) < 1e-9 else "first" if a > b else "second"))
        return votes


@dataclass(frozen=True, slots=True)
class Judgement:
    """One pair with both votes: `forward` saw the candidate first, `backward` the baseline."""

    pair: Pair
    forward: Vote
    backward: Vote

    @property
    def outcome(self) -> Outcome | None:
        """Win or loss when both orders agree on it, tie when they do not, None when a vote is missing."""
        if self.forward.choice is None or self.backward.choice is None:
            return None
        if (self.forward.choice, self.backward.choice) == ("first", "second"):
            return "win"
        if (self.forward.choice, self.backward.choice) == ("second", "first"):
            return "loss"
        return "tie"

    @property
    def by_position(self) -> bool:
        """Both orders named the same place: the judge looked at the order, not at the answers."""
        return self.forward.choice == self.backward.choice and self.forward.choice in ("first", "second")

    def to_row(self) -> Row:
        return {
            "id": self.pair.id,
            "prompt": self.pair.prompt,
            "candidate": self.pair.candidate.text,
            "baseline": self.pair.baseline.text,
            "category": self.pair.category,
            "votes": [self.forward.choice, self.backward.choice],
            "outcome": self.outcome,
            "unscored": self.forward.reason or self.backward.reason or None,
        }


def compare(judge: Judge, pairs: Sequence[Pair]) -> list[Judgement]:
    """Ask `judge` about every pair in both orders; equal answers are a tie without asking."""
    asked = [pair for pair in pairs if pair.candidate.text != pair.baseline.text]
    votes = judge.vote(
        [Question(pair.prompt, pair.candidate, pair.baseline) for pair in asked]
        + [Question(pair.prompt, pair.baseline, pair.candidate) for pair in asked]
    )
    given = {
        pair.id: (forward, backward)
        for pair, forward, backward in zip(asked, votes[: len(asked)], votes[len(asked) :], strict=True)
    }
    same = (Vote("tie"), Vote("tie"))
    return [Judgement(pair, *given.get(pair.id, same)) for pair in pairs]


POINTS: dict[Outcome, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}


def report(judge: Judge, judgements: Sequence[Judgement], alpha: float, seed: int) -> dict[str, Any]:
    """Wins with their interval, and the judge's two known weaknesses: a taste for a place, and for length.

    `first_share` is the share of votes for the answer shown first (0.5 without bias), `longer_share` that of wins
    and losses in which the longer answer won.
    """
    outcomes = [judgement.outcome for judgement in judgements]
    counts = Counter(outcome or "unscored" for outcome in outcomes)
    votes = [vote.choice for judgement in judgements for vote in (judgement.forward, judgement.backward)]
    categories: dict[str, Counter[str]] = defaultdict(Counter)
    for judgement in judgements:
        categories[judgement.pair.category][judgement.outcome or "unscored"] += 1

    def interval(values: list[float]) -> dict[str, Any]:
        return estimate([Score(value) for value in values], alpha, np.random.default_rng(seed)).to_row()

    decided = [j for j in judgements if j.outcome in ("win", "loss")]
    longer = [
        float((len(j.pair.candidate.text) > len(j.pair.baseline.text)) == (j.outcome == "win"))
        for j in decided
        if len(j.pair.candidate.text) != len(j.pair.baseline.text)
    ]
    return {
        "judge": judge.name,
        "win_rate": interval([POINTS[outcome] for outcome in outcomes if outcome]),
        "wins": counts["win"],
        "ties": counts["tie"],
        "losses": counts["loss"],
        "unscored": counts["unscored"],
        "reasons": sorted({row["unscored"] for j in judgements if (row := j.to_row())["unscored"]}),
        "equal_answers": sum(j.pair.candidate.text == j.pair.baseline.text for j in judgements),
        "inconsistent": sum(j.by_position for j in judgements),
        "first_share": interval([float(choice == "first") for choice in votes if choice in ("first", "second")]),
        "longer_share": interval(longer),
        "by_category": {name: dict(sorted(found.items())) for name, found in sorted(categories.items())},
        "facts": judge.facts,
    }


def agreement_with_labels(judgements: Sequence[Judgement], alpha: float, seed: int) -> dict[str, Any]:
    """How often the judge prefers what people preferred; the pairs' candidate is the chosen answer, a tie is half."""
    scores = [Score(POINTS[judgement.outcome]) for judgement in judgements if judgement.outcome]
    return estimate(scores, alpha, np.random.default_rng(seed)).to_row()

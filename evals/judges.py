"""The judges: a local model, an OpenAI-compatible endpoint, and, as a control, the simulated labelers' rule.

The reward model of the same run is never a judge: the policy was trained to please it.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evals.criteria import CRITERIA, HIGHEST, LOWEST, Grade, Graded, parse_grade
from evals.judge import Question, Vote
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import encode
from pipelines.core.simulated_rule import rule_score

PROMPTS = Path(__file__).with_name("prompts")
MAX_CHARACTERS = 1500  # of one answer, and of the request: keeps a judge's context bounded
VERDICT_TOKENS = 8


class JudgeDown(Exception):
    """The judge does not answer any more; the replies so far are kept, and a retry goes on from them."""


def question_text(question: Question) -> str:
    """The request that a model judge answers with a letter."""
    template = (PROMPTS / "pairwise.txt").read_text(encoding="utf-8")
    parts = (question.prompt, question.first.text, question.second.text)
    prompt, first, second = (part[:MAX_CHARACTERS] for part in parts)
    return template.format(prompt=prompt, first=first, second=second).strip()


def grading_text(asked: Graded) -> str:
    """The request that a model judge answers with a number."""
    template = (PROMPTS / "criterion.txt").read_text(encoding="utf-8")
    prompt, answer = asked.prompt[:MAX_CHARACTERS], asked.answer[:MAX_CHARACTERS]
    meaning = CRITERIA[asked.criterion]
    return template.format(prompt=prompt, answer=answer, criterion=asked.criterion, meaning=meaning).strip()


def parse_letter(reply: str) -> Vote:
    """The verdict in a judge's reply: a lone A or B, perhaps in brackets, or the word tie."""
    verdict = re.fullmatch(r"\W*(?:answer\s+)?([ab]|tie)\W*", reply.strip(), re.IGNORECASE)
    if not verdict:
        return Vote(None, f"the verdict {reply.strip()[:80]!r} is neither A nor B")
    return Vote({"a": "first", "b": "second", "tie": "tie"}[verdict[1].lower()])  # type: ignore[arg-type]


class LocalJudge:
    """A causal model that votes by how likely it finds each letter as the next token.

    Small models favour one letter whatever the answers are. The median of the log-odds over all questions, which come
    in both orders, is taken out first (batch calibration, Zhou et al. 2023) and reported as `first_bias_nats`.
    Its verdicts are a function of the questions, so asking again would say nothing.
    """

    repeats = 1

    def __init__(self, name: str, engine: Any, batch_size: int) -> None:
        self.name = name
        self.facts: dict[str, float] = {}
        self._engine = engine
        self._batch_size = batch_size

    def vote(self, questions: Sequence[Question], repeat: int = 0) -> list[Vote]:
        if not questions:
            return []
        found = self._logprobs([question_text(question) for question in questions], "AB")
        return self.vote_by_odds(found[:, 0] - found[:, 1])

    def vote_by_odds(self, log_odds: NDArray[np.float64]) -> list[Vote]:
        """Votes from the log-odds of A against B, one for each question."""
        bias = float(np.median(log_odds))
        self.facts = {"first_bias_nats": round(bias, 4)}
        return [Vote("tie" if odds == bias else "first" if odds > bias else "second") for odds in log_odds.tolist()]

    def grade(self, asked: Sequence[Graded]) -> list[Grade]:
        """The expected grade over the digits 1 to 9; 10 is no single token."""
        if not asked:
            return []
        found = self._logprobs([grading_text(graded) for graded in asked], "123456789")
        shares = np.exp(found - found.max(axis=1, keepdims=True))
        expected = (shares / shares.sum(axis=1, keepdims=True)) @ np.arange(LOWEST, HIGHEST)
        return [Grade(value) for value in expected.tolist()]

    def _logprobs(self, requests: Sequence[str], replies: str) -> NDArray[np.float64]:
        from evals.likelihood import next_token_logprobs

        tokenizer, model = self._engine.tokenizer, self._engine.model
        tokens = [tokenizer(reply, add_special_tokens=False)["input_ids"][0] for reply in replies]
        prompts = [self._engine.render([{"role": "user", "content": request}]) for request in requests]
        prompts = [prompt[-model.config.max_position_embeddings :] for prompt in prompts]
        return next_token_logprobs(model, prompts, tokens, self._batch_size)


class Reply(NamedTuple):
    """What an endpoint said, and what it counted."""

    text: str
    prompt_tokens: int
    completion_tokens: int


class Replies:
    """Replies by what was asked, appended to a file as they come: a retry asks nothing twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._found: dict[str, Reply] = {}
        if path.exists():
            for line in path.read_bytes().splitlines():
                try:
                    row = json.loads(line)
                except ValueError:  # the process was killed while it wrote
                    continue
                key = row.pop("key")
                self._found[key] = Reply(**row)

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: str) -> Reply | None:
        return self._found.get(key)

    def add(self, key: str, reply: Reply) -> None:
        with self._lock:
            self._found[key] = reply
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as out:
                out.write(b"\n" + encode({"key": key} | reply._asdict()))


class Prices(NamedTuple):
    """What a million tokens cost, in one currency."""

    prompt: float
    completion: float


FREE = Prices(0.0, 0.0)


class EndpointJudge:
    """A model behind an OpenAI-compatible address; the key comes from OPENAI_API_KEY.

    Requests are tried `attempts` times with growing pauses, as many at once as `concurrent` says.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        replies: Replies,
        *,
        repeats: int = 1,
        temperature: float = 0.0,
        concurrent: int = 4,
        attempts: int = 5,
        timeout_s: float = 60.0,
        prices: Prices = FREE,
    ) -> None:
        from openai import OpenAI

        self.name, self.repeats = model, repeats
        self._base_url, self._replies, self._attempts = base_url, replies, attempts
        self._temperature, self._concurrent, self._prices = temperature, concurrent, prices
        self._used: dict[str, Reply] = {}
        key = os.environ.get("OPENAI_API_KEY", "none")
        self._client = OpenAI(base_url=base_url, api_key=key, max_retries=attempts - 1, timeout=timeout_s)

    @property
    def facts(self) -> dict[str, float]:
        """Tokens and cost of every reply that counted, also of those that an earlier try got."""
        prompt = sum(reply.prompt_tokens for reply in self._used.values())
        completion = sum(reply.completion_tokens for reply in self._used.values())
        cost = (prompt * self._prices.prompt + completion * self._prices.completion) / 1e6
        return {"prompt_tokens": prompt, "completion_tokens": completion, "cost": round(cost, 6)}

    def vote(self, questions: Sequence[Question], repeat: int = 0) -> list[Vote]:
        """Verdicts on `questions`; `repeat` is the seed that the endpoint gets.

        Raises:
            JudgeDown: the endpoint does not answer any more.
            BadInput: it refuses to.
        """
        return [parse_letter(text) for text in self._ask([question_text(question) for question in questions], repeat)]

    def grade(self, asked: Sequence[Graded]) -> list[Grade]:
        """Grades; raises as `vote` does."""
        return [parse_grade(text) for text in self._ask([grading_text(graded) for graded in asked], 0)]

    def _ask(self, requests: Sequence[str], seed: int) -> list[str]:
        with ThreadPoolExecutor(self._concurrent) as pool:
            answers = [pool.submit(self._reply, request, seed) for request in requests]
            try:
                return [answer.result().text for answer in answers]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _reply(self, request: str, seed: int) -> Reply:
        from openai import APIConnectionError, APIStatusError

        key = hashlib.sha256(encode([self._base_url, self.name, self._temperature, request, seed])).hexdigest()
        reply = self._replies.get(key)
        if reply is None:
            try:
                reply = self._request(request, seed)
            except APIStatusError as error:
                if error.status_code == 429 or error.status_code >= 500:
                    raise self._down(error) from error
                raise BadInput(
                    f"the judge {self.name!r} at {self._base_url} refuses ({error.status_code}: {error.message}); "
                    "look at judge.endpoint, judge.model and OPENAI_API_KEY"
                ) from error
            except APIConnectionError as error:
                raise self._down(error) from error
            self._replies.add(key, reply)
        self._used[key] = reply
        return reply

    def _request(self, request: str, seed: int) -> Reply:
        found = self._client.chat.completions.create(
            model=self.name,
            messages=[{"role": "user", "content": request}],
            temperature=self._temperature,
            max_tokens=VERDICT_TOKENS,
            seed=seed,
        )
        prompt, completion = (found.usage.prompt_tokens, found.usage.completion_tokens) if found.usage else (0, 0)
        return Reply(found.choices[0].message.content or "", prompt, completion)

    def _down(self, error: Exception) -> JudgeDown:
        return JudgeDown(
            f"the judge {self.name!r} at {self._base_url} did not answer in {self._attempts} attempts "
            f"({type(error).__name__}); {len(self._replies)} replies are kept, and a retry goes on from them"
        )


class RuleJudge:
    """The control: the rule that simulated labelers follow, without their noise. It reads only the surface."""

    name = "simulated labelers' rule without noise"
    repeats = 1

    def __init__(self) -> None:
        self.facts: dict[str, float] = {}

    def vote(self, questions: Sequence[Question], repeat: int = 0) -> list[Vote]:
        votes = []
        for prompt, first, second in questions:
            a, b = (rule_score(prompt, answer.text, answer.stopped) for answer in (first, second))
            votes.append(Vote("tie" if abs(a - b) < 1e-9 else "first" if a > b else "second"))
        return votes

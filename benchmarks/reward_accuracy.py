"""How well the reward model orders answers of models and to prompts that it never saw, beside what length alone does.

    make bench NAME=reward_accuracy
    EPOCHS=2 LENGTH_BALANCE=0 make bench NAME=reward_accuracy

Data: AlpacaEval's pairs (Li et al. 2023, CC-BY-NC-4.0: for this measurement only), each an answer of text_davinci_003
and one of another model, ordered by GPT-4. A third of the prompts and five of the models are for the test, and both
must be unseen: a pair of a test prompt with a training model, or the other way round, is left out. The models are put
in order of how often they win, and one is drawn from every three neighbours. `pipelines/reward_model.py` trains from
the base model of `smol`, on those pairs and, with IMPLIED=1, on what follows from them. hh_rlhf (Bai et al. 2022) is
measured only. PART=validation splits the training pairs once more in the same way; settings are chosen there.
"""

import gzip
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.base_models import ROOT, write_policy
from pipelines import reward_model
from pipelines.core import artifacts, config
from pipelines.core.config import Params
from pipelines.core.jsonl import write_rows
from pipelines.core.records import Conversation, Message, Preference
from pipelines.core.stage import Stage
from pipelines.core.tracking import NoTracker
from pipelines.model.rewards import RewardScorer
from pipelines.reward_model import read_pairs, wilson
from pipelines.training.seeding import seed_everything

DATA = Path(os.environ.get("COLLOQUY_SHARED_DATA", ROOT.parent / "shared" / "data"))
PART = os.environ.get("PART", "test")
REFERENCE = "text_davinci_003"
SEED = 1
SETTINGS = {
    "epochs": float(os.environ.get("EPOCHS", "1")),
    "batch_pairs": int(os.environ.get("BATCH_PAIRS", "70")),
    "max_tokens": int(os.environ.get("MAX_TOKENS", "384")),
    "learning_rate": float(os.environ.get("LEARNING_RATE", "5e-5")),
    "length_balance": float(os.environ.get("LENGTH_BALANCE", "0.5")),
    "dtype": os.environ.get("DTYPE", "bfloat16"),
}
IMPLIED = os.environ.get("IMPLIED", "1") == "1"


class Judged(NamedTuple):
    """Two answers to a prompt, the better one first; `model` wrote the one that is not the reference's."""

    chat: tuple[Message, ...]
    chosen: str
    rejected: str
    model: str
    won: bool

    @property
    def prompt(self) -> str:
        return "\n".join(message.content for message in self.chat)

    @property
    def longer_by(self) -> int:
        """Characters that the chosen answer has more."""
        return len(self.chosen) - len(self.rejected)


def read_alpaca_eval(path: Path) -> list[Judged]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Judged(
            chat=(Message("user", row["instruction"]),),
            chosen=row["chosen"],
            rejected=row["rejected"],
            model=row["rejected_model"] if row["chosen_model"] == REFERENCE else row["chosen_model"],
            won=row["chosen_model"] != REFERENCE,
        )
        for row in rows
    ]


def turns_of(transcript: str) -> list[Message]:
    """A transcript of hh_rlhf as messages."""
    parts = re.split(r"\n\n(Human|Assistant):", transcript)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [Message(roles[who], text.strip()) for who, text in zip(parts[::2], parts[1::2], strict=True)]


def read_hh_rlhf(path: Path) -> list[Judged]:
    """The pairs whose two transcripts differ in the last answer only."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    found = []
    for row in rows:
        chosen, rejected = turns_of(row["chosen"]), turns_of(row["rejected"])
        if chosen[:-1] == rejected[:-1] and chosen[-1] != rejected[-1] and chosen[-1].role == "assistant":
            found.append(Judged(tuple(chosen[:-1]), chosen[-1].content, rejected[-1].content, "", True))
    return found


class Split(NamedTuple):
    train: list[Judged]
    test: list[Judged]
    test_models: list[str]


def split(pairs: Sequence[Judged], seed: int, share: float) -> Split:
    """`share` of the prompts and a third of the models for the test; what mixes the two sides is in neither."""
    draw = random.Random(seed)
    wins: dict[str, list[bool]] = {}
    for pair in pairs:
        wins.setdefault(pair.model, []).append(pair.won)
    by_strength = sorted(wins, key=lambda model: (statistics.mean(wins[model]), model))
    models = {draw.choice(by_strength[start : start + 3]) for start in range(0, len(by_strength), 3)}
    prompts = sorted({pair.prompt for pair in pairs})
    draw.shuffle(prompts)
    unseen = set(prompts[: round(share * len(prompts))])
    return Split(
        train=[pair for pair in pairs if pair.model not in models and pair.prompt not in unseen],
        test=[pair for pair in pairs if pair.model in models and pair.prompt in unseen],
        test_models=sorted(models),
    )


def with_implied(pairs: Sequence[Judged]) -> Iterator[Judged]:
    """`pairs`, and between models what follows: an answer above the reference's is above one that is below it."""
    by_prompt: dict[str, list[Judged]] = {}
    for pair in pairs:
        by_prompt.setdefault(pair.prompt, []).append(pair)
    for judged in by_prompt.values():
        yield from judged
        losers = [pair for pair in judged if not pair.won]
        yield from (won._replace(rejected=lost.rejected) for won in judged if won.won for lost in losers)


def preferences(pairs: Sequence[Judged]) -> Iterator[dict[str, object]]:
    """Rows as `prepare_preferences` writes them: every prompt weighs alike."""
    count = Counter(pair.prompt for pair in pairs)
    for number, pair in enumerate(pairs):
        prompt = Conversation(pair.prompt, pair.chat, "alpaca_eval", "unknown", "CC-BY-NC-4.0")
        yield Preference(str(number), prompt, pair.chosen, pair.rejected, 1 / count[pair.prompt], False).to_row()


def tokenized(pairs: Sequence[Judged], tokenizer: PreTrainedTokenizerBase, path: Path) -> list[reward_model.Pair]:
    """`pairs` as the stage reads them, by way of `path`."""
    write_rows(path, preferences(pairs))
    return read_pairs(path, tokenizer, SETTINGS["max_tokens"])


class Accuracy(NamedTuple):
    """Shares of pairs in the order that was judged; a tie counts half."""

    whole: float
    n: int
    shorter: float  # where the chosen answer has fewer characters
    shorter_n: int

    @classmethod
    def of(cls, margins: Sequence[float], pairs: Sequence[Judged]) -> "Accuracy":
        right = [1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins]
        shorter = [one for one, pair in zip(right, pairs, strict=True) if pair.longer_by < 0]
        return cls(statistics.mean(right), len(right), statistics.mean(shorter), len(shorter))

    def line(self, name: str) -> str:
        low, high = wilson(self.whole, self.n)
        low_shorter, high_shorter = wilson(self.shorter, self.shorter_n)
        return (
            f"{name:<28}{self.whole:7.3f}  {low:.3f} to {high:.3f}{self.n:7}"
            f"{self.shorter:12.3f}  {low_shorter:.3f} to {high_shorter:.3f}{self.shorter_n:7}"
        )


def fit_ngrams(train: Sequence[Judged]) -> Callable[[Sequence[Judged]], list[float]]:
    """Logistic regression on which words and pairs of words an answer has, and on the logarithm of its length."""
    import numpy as np
    from scipy.sparse import csr_matrix, hstack, vstack
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    words = CountVectorizer(ngram_range=(1, 2), min_df=5, binary=True, token_pattern=r"\w+|[^\w\s]|\n")
    words.fit([text for pair in train for text in (pair.chosen, pair.rejected)])

    def features(answers: Sequence[str]) -> csr_matrix:
        return hstack([words.transform(answers), csr_matrix([[5 * np.log1p(len(text))] for text in answers])]).tocsr()

    def differences(pairs: Sequence[Judged]) -> csr_matrix:
        return features([pair.chosen for pair in pairs]) - features([pair.rejected for pair in pairs])

    rows = differences(train)
    model = LogisticRegression(C=3e-4, fit_intercept=False, max_iter=300)
    model.fit(vstack([rows, -rows]), [1] * len(train) + [0] * len(train))
    return lambda pairs: list(model.decision_function(differences(pairs)))


def settings() -> Params:
    """The parameters of `smol` with `SETTINGS`, and no checkpoints."""
    params = config.parse(config.resolve(ROOT, "smol", []), "the parameters")
    return params.model_copy(
        update={
            "seed": SEED,
            "reward_model": params.reward_model.model_copy(update=SETTINGS),
            "resources": params.resources.model_copy(update={"checkpoint_interval_s": 1e9}),
        }
    )


def margins_of(scorer: RewardScorer, pairs: Sequence[reward_model.Pair]) -> list[float]:
    """How much more reward the chosen answer gets."""
    answers = list({tuple(ids) for pair in pairs for ids in (pair.chosen, pair.rejected)})
    reward = dict(zip(answers, scorer.score(answers), strict=True))
    return [reward[tuple(pair.chosen)] - reward[tuple(pair.rejected)] for pair in pairs]


def main() -> None:
    source = DATA / "alpaca_eval_pairs" / "pairs.jsonl.gz"
    if not source.exists():
        print(f"{source} is not there; set COLLOQUY_SHARED_DATA to the folder of evaluation data")
        sys.exit(2)
    parts = split(read_alpaca_eval(source), SEED, 1 / 3)
    if PART == "validation":
        parts = split(parts.train, SEED + 1, 1 / 4)
    hh_rlhf = read_hh_rlhf(DATA / "hh_rlhf" / "harmless-base-test.jsonl.gz")
    params = settings()
    print(f"{len(parts.train)} pairs to train on; unseen models: {', '.join(parts.test_models)}", flush=True)
    length = Accuracy.of([pair.longer_by for pair in parts.test], parts.test)
    ngrams = fit_ngrams(parts.train)
    ngram = Accuracy.of(ngrams(parts.test), parts.test)
    with tempfile.TemporaryDirectory(prefix="colloquy-reward-") as place:
        write_policy(Path(place) / artifacts.SFT)
        os.chdir(place)
        tokenizer = AutoTokenizer.from_pretrained(artifacts.SFT)
        judged = list(with_implied(parts.train)) if IMPLIED else parts.train
        train = tokenized(judged, tokenizer, artifacts.PREFERENCES_TRAIN)
        seed_everything(SEED)
        started = time.perf_counter()
        stage = Stage("reward_model", params, artifacts.REWARD_MODEL, NoTracker())
        scorer = reward_model.train(stage, tokenizer, train)
        seconds = time.perf_counter() - started
        os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="colloquy-reward-") as place, torch.no_grad():
        folder = Path(place)
        ours = Accuracy.of(margins_of(scorer, tokenized(parts.test, tokenizer, folder / "test.jsonl")), parts.test)
        margins = margins_of(scorer, tokenized(hh_rlhf, tokenizer, folder / "hh_rlhf.jsonl"))
        harmless = Accuracy.of(margins, hh_rlhf)
    print(f"trained on {len(train)} pairs in {seconds:.0f} s with {SETTINGS}")
    print(f"{PART:<28}accuracy  95 % interval    pairs  chosen shorter  95 % interval    pairs")
    print(ours.line("reward model"))
    print(length.line("the longer answer"))
    print(ngram.line("n-grams and length"))
    print(harmless.line("hh_rlhf, reward model"))
    print(Accuracy.of([pair.longer_by for pair in hh_rlhf], hh_rlhf).line("hh_rlhf, the longer answer"))
    figures = {
        "held_out": round(ours.whole, 4),
        "n": ours.n,
        "length_only": round(length.whole, 4),
        "chosen_shorter": round(ours.shorter, 4),
        "chosen_shorter_n": ours.shorter_n,
        "ngram": round(ngram.whole, 4),
        "ngram_chosen_shorter": round(ngram.shorter, 4),
        "hh_rlhf": round(harmless.whole, 4),
        "hh_rlhf_n": harmless.n,
        "train_seconds": round(seconds),
    }
    print(json.dumps({"name": "reward_accuracy", "figures": figures}))


if __name__ == "__main__":
    main()

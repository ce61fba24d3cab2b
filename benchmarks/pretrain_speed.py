"""Speed of `pretrain`: beside transformers' Trainer, the best plain PyTorch loop and nanochat; on a GPU its MFU.

On a CPU every contender trains a decoder of 6 layers × 384, vocabulary 32,768, on 8 × 512 tokens a step, in a process
of its own; they take turns step by step. Then the losses of the chosen dtype and of float32 on the same text. On a GPU:
1.3 B parameters, sequences of 2048.

    make bench NAME=pretrain_speed
    NANOCHAT=dir make bench NAME=pretrain_speed      dir: a checkout of karpathy/nanochat
    python3 benchmarks/pretrain_speed.py             needs torch and transformers only
    ROUNDS=9 LOSS_STEPS=200 SEQUENCES=16 …           steps timed; steps of the loss curves; GPU: micro-batch
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

VOCABULARY, LENGTH, SEQUENCES = 32_768, 512, 8
SMALL = SimpleNamespace(family="llama", layers=6, hidden=384, heads=6, kv_heads=6, context=LENGTH)
LARGE = SimpleNamespace(family="llama", layers=24, hidden=2048, heads=16, kv_heads=16, context=2048)
RATE, MAX_NORM, WEIGHT_DECAY = 1e-3, 1.0, 0.1
WARM_STEPS = 2

CONTENDERS = {
    "ours": "ours, bfloat16 with float32 masters",
    "plain_loop": "plain PyTorch, bfloat16, loss compiled",
    "hf_trainer": "transformers' Trainer, its defaults",
    "nanochat": "nanochat's step, bfloat16, compiled",
}


def rows(count: int, length: int = LENGTH, vocabulary: int = VOCABULARY):
    """Random token ids [count, length + 1]: speed does not depend on them."""
    import torch

    return torch.randint(0, vocabulary, (count, length + 1), generator=torch.Generator().manual_seed(0))


def ours_steps(dtype: str, sizes: SimpleNamespace, vocabulary: int, device: str, seed: int = 0):
    """The stage's own parts: a function that takes one step on ids, and the loss."""
    import torch

    from pipelines.model.architecture import build
    from pipelines.training.compilation import keep_freed_memory, should_compile
    from pipelines.training.next_token import LanguageModelLoss, train_step
    from pipelines.training.optimizer import BETAS, MasterAdamW

    torch.manual_seed(seed)
    model = build(sizes, vocabulary).to(device).train()
    if device == "cpu":
        keep_freed_memory()
    loss_of = LanguageModelLoss(model, should_compile("auto", device, float("inf")))
    optimizer = MasterAdamW(model, dtype, RATE, WEIGHT_DECAY, BETAS)
    return lambda ids, rate=RATE: train_step(loss_of, optimizer, [ids], rate, MAX_NORM), loss_of


def ours() -> Callable[[], None]:
    from pipelines.training.seeding import seed_everything

    seed_everything(0)
    step, _ = ours_steps("bfloat16", SMALL, VOCABULARY, "cpu")
    ids = rows(SEQUENCES)
    return lambda: step(ids)


def plain_loop() -> Callable[[], None]:
    """What a plain loop can do at the same dtype: weights in bfloat16, model and loss in one compiled function."""
    import torch
    from torch.nn import functional

    from pipelines.model.architecture import build

    torch.manual_seed(0)
    model = build(SMALL, VOCABULARY).to(torch.bfloat16).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY, fused=True)
    ids = rows(SEQUENCES)

    @torch.compile(dynamic=False)
    def loss_of(ids):
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        return functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())

    def step() -> None:
        loss = loss_of(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def hf_trainer(serve: Callable[[Callable[[], None] | None], None]) -> None:
    """The Trainer drives its own loop, so it asks for leave before each step."""
    import tempfile

    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from pipelines.model.architecture import build

    torch.manual_seed(0)
    ids = rows(SEQUENCES * 4)[:, :LENGTH]

    class Turns(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            serve(None)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=10**6,
            per_device_train_batch_size=SEQUENCES,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        data = [{"input_ids": row, "labels": row} for row in ids]
        Trainer(build(SMALL, VOCABULARY), arguments, train_dataset=data, callbacks=[Turns()]).train()


def nanochat() -> Callable[[], None]:
    """The model, optimizer and step of its base_train, without its data and reports."""
    os.environ |= {"NANOCHAT_DTYPE": "bfloat16", "NANOCHAT_BASE_DIR": "/tmp"}
    sys.path.insert(0, os.environ["NANOCHAT"])
    import torch
    from nanochat.gpt import GPT, GPTConfig

    heads = SMALL.heads
    sizes = {"n_layer": SMALL.layers, "n_head": heads, "n_kv_head": heads, "n_embd": SMALL.hidden}
    config = GPTConfig(sequence_len=LENGTH, vocab_size=VOCABULARY, window_pattern="L", **sizes)
    with torch.device("meta"):
        model = GPT(config)
    model.to_empty(device="cpu")
    model.init_weights()
    optimizer = model.setup_optimizer()
    compiled = torch.compile(model, dynamic=False)
    ids = rows(SEQUENCES)
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def step() -> None:
        loss = compiled(inputs, targets)
        loss.backward()
        optimizer.step()
        compiled.zero_grad(set_to_none=True)
        loss.item()

    return step


def worker(name: str) -> None:
    """Take a step for each line of standard input and answer with its seconds; the first answer says it is warm."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    done, started = 0, time.perf_counter()

    def serve(step: Callable[[], None] | None) -> None:
        """After a step of a contender that drives itself; or take steps for ever."""
        nonlocal done, started
        while True:
            if step:
                step()
            done += 1
            if done >= WARM_STEPS:
                print(time.perf_counter() - started, file=answers)
                if not sys.stdin.readline():
                    os._exit(0)
                started = time.perf_counter()
            if not step:
                return

    hf_trainer(serve) if name == "hf_trainer" else serve(globals()[name]())


def start(name: str) -> subprocess.Popen:
    command = [sys.executable, __file__, "worker", name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)


def answer(process: subprocess.Popen, name: str) -> float:
    line = process.stdout.readline()
    if not line:
        sys.exit(f"{name} ended without an answer; what it printed is above")
    return float(line)


def race(names: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of `rounds` steps of each contender, taking turns."""
    processes = {}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    try:
        for name in names:  # one after the other: compiling takes all cores
            processes[name] = start(name)
            print(f"{CONTENDERS[name]:<42}ready after {answer(processes[name], name):.0f} s", flush=True)
        for number in range(rounds):
            turn = names[number % len(names) :] + names[: number % len(names)]
            for name in turn:
                processes[name].stdin.write("step\n")
                seconds[name].append(answer(processes[name], name))
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return seconds


def corpus(vocabulary: int):
    """Token ids of the prose and code that installed packages carry."""
    import numpy as np
    from tokenizers import ByteLevelBPETokenizer

    from benchmarks.corpora import texts

    draw = np.random.default_rng(0)
    pool = texts()
    some = [pool[number] for number in draw.permutation(len(pool))[:400]]
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(some, vocabulary, show_progress=False)
    return np.concatenate([np.array(encoded.ids) for encoded in tokenizer.encode_batch(some)])


def loss_curves(steps: int) -> dict[str, float]:
    """Held-out loss in nats per token after `steps` steps on the same text: both dtypes, from two sets of weights."""
    import torch

    from pipelines.training.next_token import Batches, held_out_loss
    from pipelines.training.schedules import cosine

    vocabulary, length = 4096, 128
    sizes = SimpleNamespace(**vars(SMALL) | {"layers": 4, "hidden": 256, "heads": 4, "kv_heads": 4})
    tokens = corpus(vocabulary)
    held_out, train = tokens[:65_537], tokens[65_537:]
    batches, device = Batches(length, 8, 1, seed=0), torch.device("cpu")
    losses = {}
    for name, dtype, seed in (
        ("bfloat16", "bfloat16", 0),
        ("float32", "float32", 0),
        ("bfloat16, other weights", "bfloat16", 1),
        ("float32, other weights", "float32", 1),
    ):
        step, loss_of = ours_steps(dtype, sizes, vocabulary, "cpu", seed)
        for number in range(steps):
            [ids] = batches.of(train, number, device)
            step(ids, RATE * cosine(number, steps, 0.1))
        losses[name] = statistics.mean(
            held_out_loss(loss_of, held_out[start:], length, 1.0, device).loss for start in range(0, 65_536, 4096)
        )
        print(f"{name:<42}{losses[name]:.4f} nats per held-out token after {steps} steps", flush=True)
    return losses


def on_cpu() -> dict[str, float | None]:
    rounds = int(os.environ.get("ROUNDS", "9"))
    names = [name for name in CONTENDERS if name != "nanochat" or os.environ.get("NANOCHAT")]
    seconds = race(names, rounds)
    tokens = LENGTH * SEQUENCES
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"\n{'':<42}{'tokens/s':>10}{'fastest':>10}{'slowest':>10}{'ours ÷':>8}")
    for name, times in seconds.items():
        speeds = "".join(f"{tokens / value:>10,.0f}" for value in (medians[name], min(times), max(times)))
        print(f"{CONTENDERS[name]:<42}{speeds}{medians[name] / medians['ours']:>8.2f}")
    print()
    loss_curves(int(os.environ.get("LOSS_STEPS", "200")))
    ratios = {name: round(medians[name] / medians["ours"], 2) if name in medians else None for name in CONTENDERS}
    return {
        "tokens_per_s": round(tokens / medians["ours"]),
        "ratio_to_hf_trainer": ratios["hf_trainer"],
        "ratio_to_plain_loop": ratios["plain_loop"],
        "ratio_to_nanochat": ratios["nanochat"],
        "mfu": None,
    }


def time_on_gpu(sequences: int, steps: int) -> tuple[float, float]:
    """Median seconds of a step of `sequences` × context tokens, and operations per token."""
    import torch

    from pipelines.training.throughput import flops_per_token

    step, loss_of = ours_steps("bfloat16", LARGE, VOCABULARY, "cuda")
    flops = flops_per_token(loss_of.model, LARGE.context)
    parameters = sum(weight.numel() for weight in loss_of.model.parameters())
    ids = rows(sequences, LARGE.context).cuda()
    began = time.perf_counter()
    for _ in range(3):
        step(ids, 1e-5)
    torch.cuda.synchronize()
    print(f"{parameters / 1e9:.2f} B parameters, first steps {time.perf_counter() - began:.0f} s", flush=True)
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        result = step(ids, 1e-5)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    print(f"loss {result.loss:.3f}, gradient norm {result.grad_norm:.3f}")
    return statistics.median(times), flops


def on_gpu() -> dict[str, float | None]:
    import torch

    from pipelines.training.throughput import mfu, peak_flops

    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    name, tried = torch.cuda.get_device_name(), int(os.environ.get("SEQUENCES", "24"))
    seconds = flops = None
    while tried and seconds is None:
        with suppress(torch.cuda.OutOfMemoryError):
            seconds, flops = time_on_gpu(tried, int(os.environ.get("ROUNDS", "15")))
        if seconds is None:
            print(f"{tried} × {LARGE.context} tokens do not fit")
            torch._dynamo.reset()
            torch.cuda.empty_cache()
            tried //= 2
    if seconds is None or flops is None:
        sys.exit("one sequence does not fit this GPU")
    speed = tried * LARGE.context / seconds
    share = mfu(speed, flops, peak_flops(name))
    peak = torch.cuda.max_memory_allocated() / 2**30
    print(f"{name}: {tried} × {LARGE.context} tokens a step, {seconds:.3f} s, {speed:,.0f} tokens/s")
    print(f"{flops / 1e9:.2f} GFLOP a token, {speed * flops / 1e12:.0f} TFLOP/s, peak memory {peak:.1f} GiB")
    return {
        "tokens_per_s": round(speed),
        "ratio_to_hf_trainer": None,
        "ratio_to_plain_loop": None,
        "ratio_to_nanochat": None,
        "mfu": None if share is None else round(share, 3),
    }


def main() -> None:
    import torch

    figures = on_gpu() if torch.cuda.is_available() else on_cpu()
    print(json.dumps({"name": "pretrain_speed", "figures": figures}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2])
    else:
        main()

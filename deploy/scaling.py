"""The arithmetic of docs/SCALING.md: GPUs, storage, label hours and canary time from named inputs. Pure functions.

Units are in the names and decimal. Every input has its source in `SOURCES`; `deploy/scaling_tables.py` shows both.
"""

from dataclasses import dataclass
from math import ceil

DAY_S = 86_400
GIGA, TERA = 1e9, 1e12


@dataclass(frozen=True, slots=True)
class Load:
    """Who asks how much, of which model, on which GPU."""

    users: float = 1e6
    answers_per_day: float = 100e6
    peak_factor: float = 2.0
    prompt_tokens: float = 1000
    cached_share: float = 0.7
    answer_tokens: float = 250
    messages_per_conversation: float = 6
    parameters: float = 70e9
    layers: float = 80
    kv_heads: float = 8
    head_size: float = 128
    bytes_per_weight: float = 1
    bytes_per_kv_value: float = 1
    gpu_memory_gb: float = 141
    gpu_bandwidth_tb_s: float = 4.8
    gpu_tflops: float = 1979
    gpus_per_replica: float = 2
    memory_share: float = 0.9
    bandwidth_share: float = 0.6
    compute_share: float = 0.4
    batch: float = 256
    busy_share: float = 0.7
    text_bytes_per_token: float = 4.5
    question_tokens: float = 60
    record_bytes: float = 500
    log_bytes: float = 300
    log_days: float = 30
    session_bytes: float = 1000
    copies: float = 3
    shard_tb: float = 2
    moderation_ms: float = 10
    moderation_window_tokens: float = 32
    training_tflops: float = 989
    sft_tokens: float = 100e6
    episodes: float = 100_000
    corpus_tokens: float = 15e12
    kept_rounds: float = 12
    tasks: float = 20_000
    ranking_s: float = 120
    overlap_share: float = 0.3
    overlap_labelers: float = 3
    labeler_hours_per_week: float = 30
    rating_share: float = 0.1
    canary_conversations: float = 46_500


SOURCES = {
    "users": "given",
    "answers_per_day": "given: a message is a question that gets one answer",
    "peak_factor": "assumption: the busiest hour against the mean of the day",
    "prompt_tokens": "assumption: the conversation so far and the question",
    "cached_share": "assumption: of the prompt, already in the engine's prefix cache",
    "answer_tokens": "assumption; at most `chat.max_new_tokens`",
    "messages_per_conversation": "assumption",
    "parameters": "given",
    "layers": "Llama 3 70B (Grattafiori et al. 2024, table 3)",
    "kv_heads": "the same",
    "head_size": "the same: 8,192 wide, 64 heads",
    "bytes_per_weight": "FP8; 2 with bfloat16",
    "bytes_per_kv_value": "FP8; 2 with bfloat16",
    "gpu_memory_gb": "NVIDIA H200 SXM data sheet",
    "gpu_bandwidth_tb_s": "the same",
    "gpu_tflops": "the same: FP8, dense (half of the figure with sparsity)",
    "gpus_per_replica": "choice: weights and cache fit with room",
    "memory_share": "assumption: what an engine may take of the memory",
    "bandwidth_share": "assumption: reached of the data sheet's",
    "compute_share": "assumption: reached of the data sheet's",
    "batch": "choice: answers that one replica writes at once",
    "busy_share": "assumption: what is planned for at the peak, the rest is for failures and releases",
    "text_bytes_per_token": "assumption",
    "question_tokens": "assumption",
    "record_bytes": "assumption: fields and indexes of a stored message beside its text",
    "log_bytes": "assumption: one line of request_logs",
    "log_days": "assumption: kept",
    "session_bytes": "assumption: of one user's session in Valkey",
    "copies": "assumption: a replica set of three",
    "shard_tb": "assumption: data of one shard",
    "moderation_ms": "assumption: one core, one text; the bound that serving is held to",
    "moderation_window_tokens": "assumption: an answer is looked at once in each window",
    "training_tflops": "NVIDIA H200 SXM data sheet: bfloat16, dense",
    "sft_tokens": "assumption: of a round's demonstrations",
    "episodes": "assumption: of a round's PPO",
    "corpus_tokens": "Llama 3 (Grattafiori et al. 2024)",
    "kept_rounds": "assumption: rounds whose artifacts stay",
    "tasks": "assumption: prompts of a label round, 4 to 6 answers each",
    "ranking_s": "assumption: to read and rank one task",
    "overlap_share": "`labeling.overlap_share` in params.yaml",
    "overlap_labelers": "`labeling.overlap_labelers` in params.yaml",
    "labeler_hours_per_week": "assumption: productive ones",
    "rating_share": "assumption: of conversations",
    "canary_conversations": "`benchmarks/canary_rule.py`: its longest median watch, at a rating share of 10 %",
}


def peak_answers_per_s(load: Load) -> float:
    return load.answers_per_day / DAY_S * load.peak_factor


def kv_bytes_per_token(load: Load) -> float:
    """Keys and values of every layer."""
    return 2 * load.layers * load.kv_heads * load.head_size * load.bytes_per_kv_value


def kv_bytes_per_answer(load: Load) -> float:
    """In the middle of an answer."""
    return kv_bytes_per_token(load) * (load.prompt_tokens + load.answer_tokens / 2)


def most_answers_at_once(load: Load) -> float:
    """That fit into a replica's memory beside the weights."""
    room = load.gpus_per_replica * load.gpu_memory_gb * GIGA * load.memory_share
    return (room - load.parameters * load.bytes_per_weight) / kv_bytes_per_answer(load)


def flop_per_s(load: Load) -> float:
    """Of a replica."""
    return load.gpus_per_replica * load.gpu_tflops * TERA * load.compute_share


def step_s(load: Load) -> float:
    """One token for each answer of the batch: the slower of reading weights and cache, and of computing."""
    read = load.parameters * load.bytes_per_weight + load.batch * kv_bytes_per_answer(load)
    reading = read / (load.gpus_per_replica * load.gpu_bandwidth_tb_s * TERA * load.bandwidth_share)
    return max(reading, 2 * load.parameters * load.batch / flop_per_s(load))


def replica_s_per_answer(load: Load) -> float:
    """A replica's time for one answer: the part of the prompt that is not cached, then its share of the steps."""
    prompt = 2 * load.parameters * load.prompt_tokens * (1 - load.cached_share) / flop_per_s(load)
    return prompt + load.answer_tokens * step_s(load) / load.batch


def serving_gpus(load: Load) -> int:
    """Whole replicas that carry the peak at the planned use."""
    replicas = peak_answers_per_s(load) * replica_s_per_answer(load) / load.busy_share
    return ceil(replicas) * int(load.gpus_per_replica)


def moderation_cores(load: Load) -> int:
    """Question once, answer once a window, at the peak."""
    looks = 1 + ceil(load.answer_tokens / load.moderation_window_tokens)
    return ceil(peak_answers_per_s(load) * looks * load.moderation_ms / 1000)


def conversation_bytes_per_day(load: Load) -> float:
    """Of one copy: two messages for each answer."""
    text = (load.question_tokens + load.answer_tokens) * load.text_bytes_per_token
    return load.answers_per_day * (text + 2 * load.record_bytes)


def valkey_bytes(load: Load) -> float:
    """Every user's session and the context of the last conversation."""
    return load.users * (load.session_bytes + load.prompt_tokens * load.text_bytes_per_token)


def training_bytes(load: Load) -> dict[str, float]:
    """Weights, gradients, optimizer: 16 bytes a trained parameter (Rajbhandari et al. 2020), 2 a frozen one."""
    return {"SFT": 16 * load.parameters, "PPO": (16 + 16 + 2 + 2) * load.parameters}


def training_gpus(load: Load) -> dict[str, int]:
    """Whole nodes of 8 that hold this in 80 % of their memory; the rest is for activations."""
    per_node = 8 * 0.8 * load.gpu_memory_gb * GIGA
    return {name: 8 * ceil(size / per_node) for name, size in training_bytes(load).items()}


def training_gpu_hours(load: Load) -> dict[str, float]:
    """6 FLOP a parameter and trained token (Kaplan et al. 2020), 2 for a pass without training.

    An episode of PPO is generated once, read by four models, and trains two of them.
    """
    per_s = load.training_tflops * TERA * load.compute_share
    episode_tokens = load.prompt_tokens + load.answer_tokens
    flop = {
        "from nothing": 6 * load.parameters * load.corpus_tokens,
        "SFT": 6 * load.parameters * load.sft_tokens,
        "PPO": (2 + 4 * 2 + 2 * 6) * load.parameters * load.episodes * episode_tokens,
    }
    return {name: value / per_s / 3600 for name, value in flop.items()}


def artifact_bytes(load: Load) -> float:
    """Of the kept rounds: SFT, reward and aligned models in bfloat16, two checkpoints of PPO's two trained models."""
    return load.kept_rounds * load.parameters * (3 * 2 + 2 * 2 * 16)


def label_hours(load: Load) -> float:
    """Of one round: some tasks go to several people, the others to one."""
    rankings = load.tasks * (1 - load.overlap_share + load.overlap_share * load.overlap_labelers)
    return rankings * load.ranking_s / 3600


def canary_minutes(load: Load) -> float:
    """Until the watch of a canary ends, at the mean of the day; the benchmark's figure scales with the rating share."""
    needed = load.canary_conversations * 0.1 / load.rating_share
    return needed / (load.answers_per_day / load.messages_per_conversation) * DAY_S / 60

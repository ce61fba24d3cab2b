"""From raw text to token shards."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.core.sections.base import NonNegative, Positive, PositiveFloat, Section, Share
from pipelines.core.sections.sources import TokenizerSource


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

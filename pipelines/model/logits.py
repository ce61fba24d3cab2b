"""A causal model's predictions at chosen positions only: its head over the vocabulary is a fifth of a small model."""

from torch import Tensor
from transformers import PreTrainedModel


def logits_at(model: PreTrainedModel, ids: Tensor, attention: Tensor, where: Tensor) -> Tensor:
    """Logits [N, V] of the token that follows each position where `where` is true, row by row.

    Args:
        ids, attention: [B, L].
        where: [B, L], boolean; N of it are true.
    """
    hidden = model.base_model(input_ids=ids, attention_mask=attention, use_cache=False).last_hidden_state
    logits: Tensor = model.get_output_embeddings()(hidden[where])
    return logits

"""Which of transformers' attentions a model trains with here."""

from transformers import PreTrainedModel


def suit_device(model: PreTrainedModel) -> PreTrainedModel:
    """On a CPU, let `model` attend by plain products; returns `model`.

    The backward pass of PyTorch's fused attention works on tiles too small for a CPU's matrix instructions: over
    sequences of some hundred tokens, plain products took 0.7 of the time of the whole pass. They keep the scores of a
    layer, so a GPU, which trains on longer ones, keeps the fused kernel.
    """
    if model.device.type == "cpu":
        model.set_attn_implementation("eager")
    return model

"""How much of a device training uses: operations per token, and the peak rates that vendors state."""

from transformers import PreTrainedModel

# Dense bfloat16, FLOP/s, without sparsity: NVIDIA's datasheets of the SXM parts.
PEAK_BF16_FLOPS = {"H200": 989.5e12, "H100": 989.5e12, "A100": 312e12}


def flops_per_token(model: PreTrainedModel, length: int) -> float:
    """Floating-point operations that one training token takes, forward and backward.

    6 a weight in a matrix product (2 forward, 4 backward; Kaplan et al. 2020, section 2.1) and 12 × layers × width ×
    length for attention (Chowdhery et al. 2022, appendix B), which counts the masked half too, as is the custom.
    Embeddings that are only looked up, positions, norms and biases are left out; a tied embedding counts as the head.
    """
    config = model.config
    tables = [weight for name, weight in model.named_parameters() if name.endswith(("wpe.weight",))]
    inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight  # type: ignore[union-attr]
    looked_up = {id(weight) for weight in [*tables, inputs] if weight is not outputs}
    products = sum(weight.numel() for weight in model.parameters() if weight.dim() == 2 and id(weight) not in looked_up)
    heads: int = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 6.0 * products + 12.0 * config.num_hidden_layers * width * length


def peak_flops(device_name: str) -> float | None:
    """The stated dense bfloat16 peak of a GPU, in FLOP/s; None for one that is not listed, and for CPUs."""
    return next((peak for name, peak in PEAK_BF16_FLOPS.items() if name in device_name), None)


def mfu(tokens_per_s: float, flops: float, peak: float | None) -> float | None:
    """Model FLOPs utilization: the share of `peak` that `tokens_per_s` at `flops` per token comes to."""
    return None if peak is None else tokens_per_s * flops / peak

"""Learning-rate schedules as pure functions of the step."""

import math

FLOOR = 0.1  # of the peak, where cosine ends; Hoffmann et al. 2022, Training Compute-Optimal Large Language Models


def cosine(step: int, steps: int, warmup_share: float) -> float:
    """The factor on the peak learning rate at `step` of `steps` (counted from 0).

    Rises linearly to 1 over the first `warmup_share` of the steps, then falls to FLOOR along half a cosine, which
    the last step reaches (Loshchilov and Hutter, SGDR).
    """
    assert 0 <= step < steps, (step, steps)
    warmup = round(warmup_share * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))


def wsd(step: int, steps: int, warmup_share: float, decay_share: float) -> float:
    """The factor on the peak learning rate at `step` of `steps` (counted from 0): warm-up, stable, decay.

    Rises as `cosine` does, stays at 1, and falls over the last `decay_share` of the steps as 1 − √progress, towards 0
    just after the last step (Hägele et al. 2024, Scaling Laws and Compute-Optimal Training Beyond Fixed Durations).
    """
    assert 0 <= step < steps, (step, steps)
    warmup, decay = round(warmup_share * steps), round(decay_share * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    stable_end = max(warmup, steps - decay)
    if step < stable_end:
        return 1.0
    return 1 - math.sqrt((step - stable_end) / (steps - stable_end))

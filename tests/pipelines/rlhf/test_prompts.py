"""Which prompts a step asks, and how its answers are drawn: functions of seed, step and prompt."""

from pipelines.rlhf.prompts import Prompt, prompts_of_step, samplings_of


def test_every_response_has_a_seed_of_its_own() -> None:
    asked = [Prompt(f"p{number % 10}", [1]) for number in range(20)]  # each twice
    seeds = {one.seed for step in range(3) for one in samplings_of(asked, 8, 0.7, 7, step)}
    assert len(seeds) == 60
    assert samplings_of(asked, 8, 0.7, 7, 2) == samplings_of(asked, 8, 0.7, 7, 2)


def test_every_prompt_comes_before_one_comes_again() -> None:
    asked = [Prompt(f"p{number}", [number]) for number in range(5)]
    drawn = [prompt.id for step in (1, 2, 3, 4, 5) for prompt in prompts_of_step(asked, 0, step, 3)]
    assert all(sorted(drawn[start : start + 5]) == [prompt.id for prompt in asked] for start in (0, 5, 10))
    assert drawn[:5] != drawn[5:10]

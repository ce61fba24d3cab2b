import pytest

from pipelines.core.simulated_rule import WEIGHTS, rule_parts, rule_score

PROMPT = "How do I keep tomato plants healthy?"
GOOD = "Water tomato plants early and keep the soil moist."


def test_the_weights_add_up_so_that_a_score_is_between_zero_and_one():
    assert sum(WEIGHTS) == pytest.approx(1)
    assert 0 < rule_score(PROMPT, GOOD, True) < 1


@pytest.mark.parametrize(
    "worse",
    [
        "Paris has museums and cafés in every street.",  # says nothing of what was asked
        "Water tomato plants early and keep the so",  # breaks off
        "tomato plants tomato plants tomato plants tomato plants.",  # repeats itself
        "Water.",
        "wtrplnt tmt krrg bnt xzt",
        "",
    ],
)
def test_a_worse_response_scores_lower(worse):
    assert rule_score(PROMPT, worse, True) < rule_score(PROMPT, GOOD, True)


def test_a_response_that_was_cut_off_scores_lower():
    assert rule_score(PROMPT, GOOD, False) < rule_score(PROMPT, GOOD, True)


def test_beyond_sixty_words_length_costs():
    long = " ".join(f"word{i}" for i in range(120)) + "."
    assert rule_parts(PROMPT, long, True).length == 0.5


def test_a_text_without_a_word_scores_nothing():
    assert rule_score(PROMPT, "?!", True) == 0


def test_other_scripts_are_words_too():
    assert rule_parts("ما لون البحر؟", "البحر أزرق وواسع.", True).wordlike == 1

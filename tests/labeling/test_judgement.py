import pytest

from labeling.judgement import Judgement, from_result, to_result, unlabeled_reason, untouched
from tests.labeling.batches import annotation

SHOWN = ("m2", "m0", "m1")


def ranked(*order):
    return {"from_name": "rank", "to_name": "responses", "type": "ranker", "value": {"ranker": {"rank": list(order)}}}


def ticked(control, *choices):
    return {"from_name": control, "to_name": "conversation", "type": "choices", "value": {"choices": list(choices)}}


def test_a_judgement_comes_back_as_it_was_submitted():
    judgement = Judgement(
        ranking=(("m1",), ("m0", "m2")),
        flags=("harmful", "none_acceptable"),
        response_flags={"m0": ("off_topic", "untruthful"), "m2": ("harmful",)},
        comment="ünicode مرحبا\nsecond line",
    )
    assert from_result(to_result(judgement, SHOWN), SHOWN) == judgement


def test_letters_mean_the_responses_in_the_order_in_which_they_were_shown():
    judgement = from_result([ranked("m0", "m1", "m2"), ticked("untruthful", "A"), ticked("tied", "C")], SHOWN)
    assert judgement.response_flags == {"m2": ("untruthful",)}
    assert judgement.ranking == (("m0", "m1"), ("m2",))


def test_a_tie_of_the_best_response_with_nothing_above_it_changes_nothing():
    assert from_result([ranked("m2", "m0", "m1"), ticked("tied", "A")], SHOWN).ranking == (("m2",), ("m0",), ("m1",))


@pytest.mark.parametrize("order", [("m0", "m0", "m1"), ("m0", "m7")])
def test_an_order_that_names_a_response_twice_or_one_unknown_is_none(order):
    assert from_result([ranked(*order)], SHOWN).ranking == ()


def test_an_order_that_lacks_a_response_is_partial():
    assert from_result([ranked("m1", "m2")], SHOWN).ranking == (("m1",), ("m2",))


def test_an_empty_submission_is_no_order_unless_the_shown_one_was_confirmed():
    assert from_result([], SHOWN).ranking == ()
    assert from_result([ticked("flags", "as_shown")], SHOWN).ranking == (("m2",), ("m0",), ("m1",))


def test_a_kept_order_is_untouched_unless_someone_confirms_it():
    kept = annotation("t", "m0 m1 m2 m3")
    assert untouched(kept)
    assert not untouched(annotation("t", "m1 m0 m2 m3"))
    assert not untouched(annotation("t", "m0 m1 m2 m3", flags=["as_shown"]))


def test_what_does_not_count_as_a_label():
    assert unlabeled_reason(annotation("t", "m0 m1 m2 m3", lead_time_s=1.0), 2.0) == "untouched"
    assert unlabeled_reason(annotation("t", "m0 m1 m2 m3", lead_time_s=9.0), 2.0) is None
    assert unlabeled_reason(annotation("t", "m1 m0 m2 m3", lead_time_s=1.0), 2.0) is None
    assert unlabeled_reason(annotation("t", "", flags=["skipped"]), 2.0) == "skipped"
    assert unlabeled_reason(annotation("t", ""), 2.0) == "no valid order"
    assert unlabeled_reason(annotation("t", "m0 m1 m2 m3", flags=["cannot_judge"], lead_time_s=1.0), 2.0) is None

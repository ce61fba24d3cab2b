from labeling.simulated import judge, lead_time_s
from tests.labeling.batches import batch, task

GOOD_TO_BAD = ["What is good about bees? They are good for flowers.", "Bees are good.", "honey money", ""]


def flat(judgement):
    return [name for group in judgement.ranking for name in group]


def test_without_noise_the_rule_decides():
    assert flat(judge(task("p", GOOD_TO_BAD), "ann", 1, 0.0)) == ["m0", "m1", "m2", "m3"]


def test_a_labeler_decides_the_same_every_time_and_another_may_not():
    tasks = batch(40)
    first = [judge(entry, "ann", 1, 0.3) for entry in tasks]
    assert first == [judge(entry, "ann", 1, 0.3) for entry in tasks]
    assert first != [judge(entry, "bob", 1, 0.3) for entry in tasks]
    assert first != [judge(entry, "ann", 2, 0.3) for entry in tasks]


def test_noise_swaps_about_as_many_neighbours_as_it_says():
    entry = task("p", GOOD_TO_BAD)
    first_swapped = sum(flat(judge(entry, f"labeler-{i}", 1, 0.2))[0] != "m0" for i in range(1000))
    assert 160 < first_swapped < 240


def test_equal_responses_are_tied():
    judgement = judge(task("p", ["Bees make honey.", "Bees make honey.", "x"]), "ann", 1, 0.0)
    assert judgement.ranking == (("m0", "m1"), ("m2",))


def test_a_task_without_an_acceptable_response_is_flagged():
    assert judge(task("p", ["", "zz", "qq", "xx"]), "ann", 1, 0.0).flags == ("none_acceptable",)


def test_more_to_read_takes_longer():
    assert lead_time_s(task("p", ["a b c"] * 4)) < lead_time_s(task("p", ["a b c d e f"] * 4))
    assert lead_time_s(task("p", [""] * 4)) > 2

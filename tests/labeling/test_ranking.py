from labeling.ranking import consensus, pairs_of, places, strongest_pairs


def ranking(text):
    return tuple(tuple(group) for group in text.split())


def test_a_ranking_states_every_pair_but_those_it_ties():
    assert pairs_of(ranking("a bc d")) == {("a", "b"), ("a", "c"), ("a", "d"), ("b", "d"), ("c", "d")}


def test_a_partial_ranking_says_nothing_of_what_it_leaves_out():
    assert pairs_of(ranking("a c")) == {("a", "c")}


def test_tied_responses_share_the_mean_of_their_places():
    assert places(ranking("a bc d")) == {"a": 1, "b": 2.5, "c": 2.5, "d": 4}


def test_the_consensus_of_one_labeler_is_that_ranking():
    assert consensus([ranking("c ab d")]).ranking() == (("c",), ("a", "b"), ("d",))


def test_the_majority_decides_each_pair():
    agreed = consensus([ranking("a b c"), ranking("a c b"), ranking("b a c")])
    assert agreed.ranking() == (("a",), ("b",), ("c",))
    assert agreed.margins == {("a", "b"): 1, ("a", "c"): 3, ("b", "c"): 1}


def test_the_weakest_majority_of_a_circle_gives_way():
    # Tideman's circle: a over b by 9 - 6, b over c by 11 - 4, c over a by 8 - 7.
    votes = [ranking("a b c")] * 7 + [ranking("b c a")] * 4 + [ranking("c a b")] * 2 + [ranking("c b a")] * 2
    agreed = consensus(votes)
    assert agreed.margins[("b", "c")] == 7
    assert agreed.margins[("a", "b")] == 3
    assert ("c", "a") not in agreed.margins
    assert agreed.ranking() == (("a",), ("b",), ("c",))


def test_a_circle_of_equal_majorities_stays_open():
    agreed = consensus([ranking("a b c"), ranking("b c a"), ranking("c a b")])
    assert agreed.margins == {}


def test_two_labelers_who_contradict_each_other_leave_the_pair_open():
    agreed = consensus([ranking("a b c"), ranking("b a c")])
    assert set(agreed.margins) == {("a", "c"), ("b", "c")}


def test_pairs_to_train_on_are_clear_first_and_then_wide():
    agreed = consensus([ranking("a b c d")])
    assert strongest_pairs(agreed, 3, [0.5] * 6)[0] == ("a", "d")
    assert set(strongest_pairs(agreed, 3, [0.5] * 6)[1:]) == {("a", "c"), ("b", "d")}
    doubted = consensus([ranking("a b c d"), ranking("a b d c"), ranking("d a b c")])
    assert strongest_pairs(doubted, 1, [0.5] * 6) == [("a", "c")]

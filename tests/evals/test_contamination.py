"""An item counts as seen when a long run of its words was trained on."""

from evals.contamination import contaminated

LONG = "Which planet of the Solar System takes the least time to go once around the Sun?"


def found(text: str, question: str = LONG, ngram: int = 13) -> list[str]:
    return contaminated([{"id": "q", "question": question}], [text], ngram)["contaminated"]


def test_a_copied_question_is_found_whatever_its_case_and_punctuation() -> None:
    assert found("quiz: which planet of the solar system -- takes the least time to go once around the sun") == ["q"]


def test_a_long_run_is_enough() -> None:
    assert found("He asked which planet of the solar system takes the least time to go once daily.") == ["q"]
    assert found("Which planet of the Solar System takes the most time?") == []


def test_a_shorter_item_must_occur_whole() -> None:
    question = "What do decomposers such as fungi do in a forest?"
    assert found("We learned what do decomposers such as fungi do in a forest today", question) == ["q"]
    assert found("What do decomposers such as fungi do in a garden?", question) == []


def test_items_of_a_word_or_two_are_not_checked() -> None:
    report = contaminated([{"id": "q", "question": "Inflation?"}], ["Inflation?"], 13)
    assert report["checked"] == 0
    assert report["contaminated_share"] == 0.0


def test_each_item_is_found_by_its_own_words() -> None:
    other = {"task_id": "p", "prompt": "Return the sum of the two smallest numbers of a list of any length."}
    items = [{"id": "q", "question": LONG}, other, {"id": "r", "question": f"Say it again: {LONG}"}]
    report = contaminated(items, ["Nothing.", f"A quiz. {LONG} Mercury."], 13)
    assert report["contaminated"] == ["q", "r"]
    assert report["contaminated_share"] == 2 / 3

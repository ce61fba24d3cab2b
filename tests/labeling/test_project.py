from labeling.assignment import Assignment
from labeling.project import Batch, conversation_html, instructions, shown_order, task_data
from tests.labeling.batches import AWKWARD, batch, task

BATCH = Batch("0123456789abcdef", "1", "", "human")


def test_markup_in_a_conversation_shows_as_it_was_typed():
    entry = task("p", AWKWARD, question='Why <b>bold</b> & "so"?<script>alert(1)</script>')
    shown = conversation_html(entry.prompt)
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; &quot;so&quot;?&lt;script&gt;" in shown
    assert shown.startswith('<div class="turn user" dir="auto"><b>User</b>')


def test_responses_are_shuffled_per_task_and_always_alike():
    orders = [tuple(shown_order(entry)) for entry in batch(200)]
    assert orders == [tuple(shown_order(entry)) for entry in batch(200)]
    first = [order[0] for order in orders]
    assert all(30 < first.count(name) < 70 for name in ("m0", "m1", "m2", "m3"))


def test_the_page_gets_letters_in_the_shown_order_and_the_text_untouched():
    entry = task("p", AWKWARD)
    data = task_data(entry, BATCH, Assignment(entry.id, 3, ("a@simulated.invalid",)))
    assert [row["id"] for row in data["responses"]] == data["shown_order"] == shown_order(entry)
    assert [row["title"][0] for row in data["responses"]] == ["A", "B", "C", "D", "E"]
    assert {row["body"] for row in data["responses"]} == set(AWKWARD)
    assert [row["title"].endswith("(empty)") for row in data["responses"]] == [
        row["body"] == "" for row in data["responses"]
    ]
    assert (data["needed"], data["assigned"], data["guideline_version"]) == (3, ["a@simulated.invalid"], "1")


def test_people_and_simulated_labelers_get_different_projects():
    assert BATCH.title == "Rank responses 01234567"
    assert Batch(BATCH.id, "1", "", "simulated").title == "Rank responses 01234567 (simulated)"


def test_guidelines_become_html_without_passing_markup_on():
    page = instructions("# How\n\n1. **Harmless**\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<script>x</script>\n")
    assert "<h1>How</h1>" in page
    assert "<strong>Harmless</strong>" in page
    assert "<td>2</td>" in page
    assert "<script>" not in page

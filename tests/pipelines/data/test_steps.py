"""Steps: nothing disappears without step and reason, and the funnel adds up."""

from dataclasses import replace

from pipelines.core.records import Document
from pipelines.data.steps import Dropped, Funnel, Unusable, Verdict, filtering, run_steps, transforming


def document(text: str, source: str = "s") -> Document:
    return Document(id=text, text=text, source=source, license="MIT")


def no_short(one: Document) -> Verdict:
    return True if len(one.text) > 2 else (False, "short")


def upper(one: Document) -> Document:
    if "?" in one.text:
        raise Unusable("a question")
    return replace(one, text=one.text.upper() + "!")


STEPS = [filtering("length", no_short), transforming("upper", upper)]


def test_documents_come_through_changed_or_dropped_in_order() -> None:
    results = list(run_steps(map(document, ["abc", "x", "why?", "def"]), STEPS, Funnel(STEPS)))
    assert [r.text if isinstance(r, Document) else (r.step, r.reason) for r in results] == [
        "ABC!",
        ("length", "short"),
        ("upper", "a question"),
        "DEF!",
    ]


def test_a_drop_keeps_the_document_as_it_was() -> None:
    [dropped] = run_steps([document("x")], STEPS, Funnel(STEPS))
    assert isinstance(dropped, Dropped)
    assert dropped.to_row() == {"step": "length", "reason": "short", "document": document("x").to_row()}


def test_the_funnel_counts_each_step_and_source() -> None:
    funnel = Funnel(STEPS)
    list(run_steps([document("abc", "a"), document("é", "b"), document("why?", "a")], STEPS, funnel))
    length_a, length_b, upper_a = funnel.rows()
    assert length_a == {
        "step": "length",
        "module": __name__,
        "source": "a",
        "documents_in": 2,
        "documents_out": 2,
        "bytes_in": 7,
        "bytes_out": 7,
        "dropped": {},
    }
    assert (length_b["source"], length_b["bytes_in"], length_b["dropped"]) == ("b", 2, {"short": 1})
    assert (upper_a["documents_in"], upper_a["documents_out"], upper_a["bytes_out"]) == (2, 1, 4)


def test_steps_stream() -> None:
    seen: list[str] = []

    def endless() -> object:
        while True:
            seen.append("one")
            yield document("abc")

    results = run_steps(endless(), STEPS, Funnel(STEPS))  # type: ignore[arg-type]
    assert isinstance(next(results), Document)
    assert len(seen) == 1

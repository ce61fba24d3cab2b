"""Which conversations a candidate answers: decided when they begin, and kept, so that nobody changes models midway."""

from pathlib import Path

from serving import release_state
from serving.operations.canary import arm_of
from serving.release_state import Candidate

FOLDER = "arms"  # beside the release state: a file of conversation ids for each candidate


def _file(home: Path, bento: str) -> Path:
    return home / release_state.FOLDER / FOLDER / f"{bento.replace(':', '-')}.txt"


def read(home: Path, bento: str) -> set[str]:
    """The conversations that belong to the candidate `bento`."""
    try:
        return set(_file(home, bento).read_text().split())
    except FileNotFoundError:
        return set()


class Arms:
    """The conversations of the candidate that is watched just now."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._bento = ""
        self._ours: set[str] = set()

    def _of(self, candidate: Candidate) -> set[str]:
        if candidate.bento != self._bento:
            self._bento, self._ours = candidate.bento, read(self._home, candidate.bento)
        return self._ours

    def begin(self, conversation_id: str, candidate: Candidate) -> None:
        """Decide who answers a conversation that begins."""
        if arm_of(conversation_id, candidate.bento, candidate.share) == "candidate":
            ours, file = self._of(candidate), _file(self._home, candidate.bento)
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a") as lines:
                lines.write(f"{conversation_id}\n")
            ours.add(conversation_id)

    def has(self, conversation_id: str, candidate: Candidate) -> bool:
        """Whether the candidate answers this conversation."""
        return conversation_id in self._of(candidate)

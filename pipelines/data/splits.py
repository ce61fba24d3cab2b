"""Which side of a split a record belongs to: a function of its id and the seed alone."""

import hashlib


def is_held_out(record_id: str, share: float, seed: int) -> bool:
    """True for about `share` of all ids; a record keeps its side when others come or go."""
    digest = hashlib.sha256(f"{seed}:{record_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64

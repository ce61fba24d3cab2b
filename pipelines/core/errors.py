"""The one exception for bad input, and the exit codes that stages and commands speak."""

from enum import IntEnum


class BadInput(Exception):
    """Something a person gave is wrong; the message names the value and the remedy. Never retried."""


class ExitCode(IntEnum):
    """What a stage or command tells the DAG; part of the contract in `core/workspace.py`."""

    OK = 0
    BAD_INPUT = 65  # EX_DATAERR: a retry can't help
    NOT_YET = 75  # EX_TEMPFAIL: ask again later
    SKIP = 99  # nothing to do here; what follows is skipped too

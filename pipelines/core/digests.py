"""Content hashes of what a run reads from outside its workspace."""

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """SHA-256 of the file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """SHA-256 over the names and contents of the files that lie directly in `folder`, in hex."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    lines = [f"{file_sha256(path)}  {path.name}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()

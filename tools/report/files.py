"""Files that are whole or not there."""

from pathlib import Path


def write(path: Path, text: str) -> None:
    """Writes beside the place, then renames: a reader, or a failure, never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)

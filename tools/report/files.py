"""Files that are whole or not there."""

import contextlib
import os
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Writes beside the place, then renames: a reader, or a failure, never meets half a file.

    The name beside it is always the same: what a killed run has left there is overwritten by the next.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            # The bytes must be on the disk before the name is, or a crash of the machine could leave the new name empty.
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # Of a full disk, Python does not say what it was writing.
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        # There is none after a success. Where nothing can be written, nothing can be removed either.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)

"""Whole-file checksums: what a card or a journal says of a file, and whether the file still is that."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from actcli.errors import ActcliError
from actcli.files import file_checksum, open_regular


@dataclass(frozen=True)
class FileSeal:
    """A file as it was written."""

    name: str
    """Name in its folder."""
    bytes: int
    """Size."""
    checksum: str
    """sha256, in hex."""

    @staticmethod
    def of(path: Path) -> "FileSeal":
        """What a file is now."""
        return FileSeal(path.name, path.stat().st_size, file_checksum(path))


def seal_of(name: str, data: bytes | memoryview) -> FileSeal:
    """What a card says of a file with these bytes."""
    return FileSeal(name, len(data), hashlib.sha256(data).hexdigest())


def difference(path: Path, size: int, checksum: str) -> str | None:
    """How a file differs from what was written, in words; ``None`` where it does not."""
    try:
        with open_regular(path) as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                return f"{found} bytes, the card says {size}"
            is_same = hashlib.file_digest(file, "sha256").hexdigest() == checksum
            return None if is_same else "its sha256 is not the card's: bytes have changed"
    except FileNotFoundError:
        return "is missing"
    except ActcliError:
        return "is no regular file"
    except OSError as error:
        return f"cannot be read ({error.strerror})"

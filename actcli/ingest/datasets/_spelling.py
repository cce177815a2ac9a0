"""Files whose spelling on disk differs from the official list in case or in the Unicode form of accents."""

import os
import unicodedata
from pathlib import Path, PurePosixPath


def folded(name: str) -> str:
    """The name without differences of case and of Unicode composition."""
    return unicodedata.normalize("NFC", name).casefold()


class SpellingIndex:
    """Finds ``folder/file`` under a root, exactly or in another spelling; a folder is listed once, when first used."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[str, dict[str, str]] = {}

    def find(self, relative: str) -> str:
        """The path as spelled on disk; ``relative`` itself where there is no such file."""
        found = ""
        for part in PurePosixPath(relative).parts:
            names = self._list(found)
            actual = part if part in names.values() else names.get(folded(part))
            if actual is None:
                return relative
            found = f"{found}/{actual}" if found else actual
        return found

    def _list(self, folder: str) -> dict[str, str]:
        """Folded name to name on disk."""
        if folder not in self._names:
            path = self.root / folder
            names = sorted(os.listdir(path)) if path.is_dir() else []
            self._names[folder] = {folded(name): name for name in names}
        return self._names[folder]

"""The journal of a run that is not finished: what it may have written, so that a killed run continues."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from actcli.errors import ActcliError
from actcli.files import open_regular, written_whole
from actcli.shards.card import ShardFile

JOURNAL_NAME = ".actcli-shard.jsonl"


@dataclass(frozen=True)
class Journal:
    """Which files a run may have written, and which tars are whole; there until the run is finished."""

    digest: str = ""
    """Of the settings and frames of the run."""
    names: frozenset[str] = frozenset()
    """Files that are ours."""
    shards: dict[str, ShardFile] = field(default_factory=dict)
    """Tars that the run finished, by name."""

    @staticmethod
    def read(folder: Path) -> "Journal":
        """The journal of the folder; an empty one where there is none."""
        lines = _journal_lines(folder / JOURNAL_NAME)
        try:
            head = json.loads(next(lines, b"{}"))
            journal = Journal(str(head.get("digest", "")), frozenset(map(str, head.get("names", ()))))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ActcliError(
                f"{folder / JOURNAL_NAME}, which names the files of an unfinished run, is damaged ({error}). "
                "Delete the folder, or write to another one with --shards-dir."
            ) from error
        with suppress(ValueError, TypeError, RecursionError):  # tars from a damaged line on are written again
            for line in lines:
                file = ShardFile(**json.loads(line))
                journal.shards[str(file.name)] = file
        return journal

    def write(self, folder: Path) -> None:
        """Put this journal in place of the folder's."""
        with written_whole(folder / JOURNAL_NAME) as partial, partial.open("wb") as file:
            head = {"digest": self.digest, "names": sorted(self.names)}
            for value in (head, *map(asdict, self.shards.values())):
                file.write(json.dumps(value).encode() + b"\n")

    @staticmethod
    def add(folder: Path, shard: ShardFile) -> None:
        """Note a tar as whole."""
        with (folder / JOURNAL_NAME).open("ab") as file:
            file.write(json.dumps(asdict(shard)).encode() + b"\n")


def _journal_lines(path: Path) -> Iterator[bytes]:
    """Whole lines; the one that was being written when the run was killed is left out."""
    if not path.exists():
        return
    with open_regular(path) as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line

"""``history.jsonl``, a line for each epoch of a run that was done, and the mark of its end; both have checksums."""

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from actcli.engine.recipes import read_fields
from actcli.engine.reporting import EpochReport
from actcli.errors import ActcliError
from actcli.files import read_small_text, write_text_whole

HISTORY_NAME = "history.jsonl"
FINISHED_NAME = "finished"
_SEAL = "sha256"


def digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_history(run_dir: Path, epochs: Sequence[EpochReport]) -> None:
    """Write the epochs; each line ends with the SHA-256 of all that comes before that in the file."""
    write_text_whole(run_dir / HISTORY_NAME, _text(map(asdict, epochs)))


def _text(lines: Iterable[Mapping[str, object]]) -> str:
    text = ""
    for fields in lines:
        text += json.dumps({**fields, _SEAL: digest(text + json.dumps(fields))}) + "\n"
    return text


def read_history(run_dir: Path) -> tuple[tuple[EpochReport, ...], bool]:
    """The epochs, and whether they have checksums, which somebody may have taken away to edit them.

    Raises:
        ActcliError: The file is not what was written, or cannot be read; or the mark of the end is that of another one.
    """
    path = run_dir / HISTORY_NAME
    try:
        text = read_small_text(path) if path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        seals = [line.pop(_SEAL, None) for line in lines if isinstance(line, dict)]
        epochs = tuple(read_fields(EpochReport, line, str(path)) for line in lines)
    except (OSError, ValueError, RecursionError) as error:
        raise ActcliError(f"{path} cannot be read ({error}). {_again(run_dir)}") from error
    is_sealed = not lines or any(seals)
    if is_sealed and text != _text(lines):
        raise ActcliError(f"{path} is not what was written: it was edited, or is damaged. {_again(run_dir)}")
    if is_sealed and lines and (run_dir / FINISHED_NAME).exists() and not is_finished(run_dir):
        raise ActcliError(
            f"{run_dir / FINISHED_NAME} cannot be read, or is not the mark of the {HISTORY_NAME} there: one of them "
            f"was changed, or is damaged. {_again(run_dir, 'both', 'them')}"
        )
    return epochs, is_sealed


def _again(run_dir: Path, what: str = "it", that: str = "it") -> str:
    return (
        f"Delete {what}, and this writes {that} again from the checkpoint: actcli train --resume --run-dir "
        f"{shlex.quote(str(run_dir))}"
    )


def write_finished(run_dir: Path) -> None:
    """Mark the end of a run; ``sha256sum --check`` takes the mark."""
    text = read_small_text(run_dir / HISTORY_NAME)
    write_text_whole(run_dir / FINISHED_NAME, f"{digest(text)}  {HISTORY_NAME}\n")


def is_finished(run_dir: Path) -> bool:
    """Whether the training came to its last epoch: the mark of that belongs to the history that is there.

    Runs of the time before checksums have an empty mark.
    """
    mark, path = run_dir / FINISHED_NAME, run_dir / HISTORY_NAME
    if not mark.exists():
        return False
    try:
        written, text = read_small_text(mark), read_small_text(path) if path.exists() else ""
    except (ActcliError, OSError, UnicodeDecodeError):
        return False
    return written == f"{digest(text)}  {HISTORY_NAME}\n" or not (written or f'"{_SEAL}"' in text)

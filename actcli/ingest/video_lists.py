"""Lists in the form of TSN and TSM, for other tools that read ``--layout folders``.

``train_videofolder.txt`` has a line ``<folder> <number of frames> <label>`` a clip, ``category.txt`` the classes in
label order. With several split sets the lists are ``train1_videofolder.txt``, ``test1_videofolder.txt`` and so on;
those of flow are ``train_videofolder.flow.txt``.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from actcli.files import write_text_whole
from actcli.ingest.layout import Modality, modality_file, payload_path
from actcli.ingest.outcome import ClipOutcome
from actcli.ingest.records import Listing


def write_video_lists(frames_dir: Path, listing: Listing, outcomes: Sequence[ClipOutcome], modality: Modality) -> None:
    """Write the lists of an extraction's kept clips; clips without a label have -1.

    Args:
        frames_dir: Folder of the extraction; paths in the lists are relative to it.
        listing: The clips.
        outcomes: What became of each of them, in the same order.
        modality: Which frames are listed.
    """
    write_text_whole(frames_dir / "category.txt", "".join(f"{name}\n" for name in listing.classes))
    for split_set, splits in listing.split_sets.items():
        for split in splits:
            stem = f"{split}{'' if len(listing.split_sets) == 1 else split_set}_videofolder"
            lines = _lines(frames_dir, listing, outcomes, modality, (split_set, split))
            write_text_whole(modality_file(frames_dir, stem, modality, ".txt"), "".join(lines))


def _lines(
    frames_dir: Path,
    listing: Listing,
    outcomes: Sequence[ClipOutcome],
    modality: Modality,
    side: tuple[str, str],
) -> Iterator[str]:
    for record, outcome in zip(listing.records, outcomes, strict=True):
        if outcome.is_ok and side in record.splits.items():
            folder = payload_path(frames_dir, outcome.key, modality, "folders").relative_to(frames_dir)
            yield f"{folder.as_posix()} {outcome.num_frames} {record.label}\n"

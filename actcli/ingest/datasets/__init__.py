"""The datasets: one module each, all listed here."""

import contextlib
import fnmatch
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from actcli.errors import ActcliError
from actcli.ingest.datasets import diving48, hmdb51, jester, kinetics, something_v1, something_v2, ucf101
from actcli.ingest.datasets.folder import folder_adapter
from actcli.ingest.records import DatasetAdapter

_OFFICIAL = (
    something_v2.ADAPTER,
    something_v1.ADAPTER,
    jester.ADAPTER,
    *kinetics.ADAPTERS,
    ucf101.ADAPTER,
    hmdb51.ADAPTER,
    diving48.ADAPTER,
)

_OTHER_NAMES = {
    "sthv2": "ssv2 sthsthv2 sth2 somethingv2 something2 somethingsomethingv2 20bnsomethingsomethingv2 smthv2",
    "sthv1": "ssv1 sthsthv1 sth1 somethingv1 something1 somethingsomethingv1 20bnsomethingsomethingv1 smthv1",
    "sthv1 or sthv2": "sth sthsth something somethingsomething smth",
    "jester": "jesterv1 20bnjester 20bnjesterv1",
    "kinetics400": "k400 kinetic400 kinetics400tiny",
    "kinetics600": "k600 kinetic600",
    "kinetics700": "k700 kinetic700 kinetics7002020 k7002020",
    "kinetics400, kinetics600 or kinetics700": "kinetics kinetic k",
    "ucf101": "ucf",
    "hmdb51": "hmdb",
    "diving48": "diving diving48v2",
}
"""Names in use for known datasets, without case and marks; ours are added below."""

_FEW_FOLDERS, _FEW_FILES = 200, 10_000
"""Below so many folders, and in so many of their files, signs of a known dataset are looked for."""


def list_datasets() -> list[DatasetAdapter]:
    """Every dataset known by name, and ``folder``, which stands for anybody's own."""
    return [*_OFFICIAL, folder_adapter("folder", _refuse_official)]


def get_dataset(name: str) -> DatasetAdapter:
    """The adapter called ``name``; a name that is no known dataset's is a ``folder`` dataset in ``raw/<name>``.

    Raises:
        ActcliError: The name could not be that of a folder, or is another name of a known dataset.
    """
    for adapter in _OFFICIAL:
        if adapter.name == name:
            return adapter
    if meant := _meant(name):
        raise ActcliError(
            f"There is no dataset {name!r}; did you mean {meant}? If its files lie in raw/{name}, say: "
            f"--dataset {meant.split(',')[0].split()[0]} --raw-dir raw/{name}. Your own videos need another name."
        )
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ActcliError(
            f"{name!r} cannot name a dataset. Use one of {_known()}, or for your own videos a name of letters, "
            "digits, '-', '_' and '.'."
        )
    return folder_adapter(name, _refuse_official)


def describe_dataset(name: str) -> DatasetAdapter:
    """The adapter of a known dataset, or of ``folder``.

    Raises:
        ActcliError: There is none of this name.
    """
    adapter = next((adapter for adapter in list_datasets() if adapter.name == name), None)
    if adapter is None:
        meant = _meant(name)
        hint = f"; did you mean {meant}?" if meant else "."
        raise ActcliError(f"There is no dataset {name!r}{hint} Known are: {_known()}, and folder for your own videos.")
    return adapter


def _known() -> str:
    return ", ".join(adapter.name for adapter in _OFFICIAL)


def _meant(name: str) -> str:
    """The known dataset, or datasets, that go by another name; empty where there is none."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    ours = (adapter.name for adapter in _OFFICIAL if adapter.name == plain)
    return next(ours, next((ours for ours, others in _OTHER_NAMES.items() if plain in others.split()), ""))


def _refuse_official(raw_dir: Path) -> None:
    """Raise ``ActcliError`` if the folder of somebody's own videos holds the files of a known dataset."""
    names = list(_outer_names(raw_dir))
    for adapter in _OFFICIAL:
        for found in (name for mark in adapter.marks for name in fnmatch.filter(names, mark)):
            raise ActcliError(
                f"{raw_dir} has {found}, which belongs to {adapter.title}; did you mean {adapter.name}? "
                f"Say: --dataset {adapter.name} --raw-dir {raw_dir}"
            )
    if any(kinetics.is_list(raw_dir / name) for name in names if name.endswith(".csv")):
        raise ActcliError(
            f"{raw_dir} has lists of YouTube ids, which belong to Kinetics; did you mean kinetics400, kinetics600 or "
            f"kinetics700? Say: --dataset kinetics400 --raw-dir {raw_dir}"
        )


def _outer_names(raw_dir: Path) -> Iterator[str]:
    """What lies in the folder and, where that is not much, in the folders below it."""
    folders = []
    for entry in os.scandir(raw_dir):
        yield entry.name
        if entry.is_dir():
            folders.append(entry.name)
    for folder in folders if len(folders) <= _FEW_FOLDERS else ():
        with contextlib.suppress(OSError), os.scandir(raw_dir / folder) as entries:
            yield from (f"{folder}/{entry.name}" for entry in itertools.islice(entries, _FEW_FILES))

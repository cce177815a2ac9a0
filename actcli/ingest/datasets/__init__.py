"""The datasets: one module each, all listed here."""

import re

from actcli.errors import ActcliError
from actcli.ingest.datasets import hmdb51, jester, kinetics, something_v1, something_v2, ucf101
from actcli.ingest.datasets.folder import folder_adapter
from actcli.ingest.records import DatasetAdapter

_OFFICIAL = (
    something_v2.ADAPTER,
    something_v1.ADAPTER,
    jester.ADAPTER,
    *kinetics.ADAPTERS,
    ucf101.ADAPTER,
    hmdb51.ADAPTER,
)


def list_datasets() -> list[DatasetAdapter]:
    """Every dataset known by name, and ``folder``, which stands for anybody's own."""
    return [*_OFFICIAL, folder_adapter("folder")]


def get_dataset(name: str) -> DatasetAdapter:
    """The adapter called ``name``; a name that is no known dataset's is a ``folder`` dataset in ``raw/<name>``.

    Raises:
        ActcliError: The name could not be that of a folder.
    """
    for adapter in _OFFICIAL:
        if adapter.name == name:
            return adapter
    if not re.fullmatch(r"\w[\w.-]*", name):
        known = ", ".join(adapter.name for adapter in _OFFICIAL)
        raise ActcliError(
            f"{name!r} cannot name a dataset. Use one of {known}, or for your own videos a name of letters, "
            "digits, '-', '_' and '.'."
        )
    return folder_adapter(name)

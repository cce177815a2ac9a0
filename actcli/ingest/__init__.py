"""From downloaded footage and official annotations to one file of frames per clip.

Each name is brought from its module when it is asked for, so that a worker process loads what decodes clips, and not
what makes manifests. ``inspect_dataset`` is in ``actcli.ingest.inspect``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    "MANIFEST_SCHEMA": "manifest",
    "UNLABELLED": "records",
    "ClipOutcome": "outcome",
    "ClipRecord": "records",
    "DatasetAdapter": "records",
    "DatasetCard": "card",
    "Estimate": "plan",
    "ExtractOptions": "options",
    "ExtractPlan": "plan",
    "ExtractProgress": "summary",
    "ExtractSummary": "summary",
    "Listing": "records",
    "SplitCount": "plan",
    "SplitRule": "split",
    "dequantise": "flow",
    "describe_dataset": "datasets",
    "extract_dataset": "extract",
    "flow_to_colour": "flow",
    "get_dataset": "datasets",
    "list_datasets": "datasets",
    "make_synthetic": "synthetic",
    "payload_path": "layout",
    "plan_extraction": "extract",
    "read_manifest": "manifest",
}
"""Name to the module that it is in."""

__all__ = list(_HOMES)

if TYPE_CHECKING:
    from actcli.ingest.card import DatasetCard as DatasetCard
    from actcli.ingest.datasets import describe_dataset as describe_dataset
    from actcli.ingest.datasets import get_dataset as get_dataset
    from actcli.ingest.datasets import list_datasets as list_datasets
    from actcli.ingest.extract import extract_dataset as extract_dataset
    from actcli.ingest.extract import plan_extraction as plan_extraction
    from actcli.ingest.flow import dequantise as dequantise
    from actcli.ingest.flow import flow_to_colour as flow_to_colour
    from actcli.ingest.layout import payload_path as payload_path
    from actcli.ingest.manifest import MANIFEST_SCHEMA as MANIFEST_SCHEMA
    from actcli.ingest.manifest import read_manifest as read_manifest
    from actcli.ingest.options import ExtractOptions as ExtractOptions
    from actcli.ingest.outcome import ClipOutcome as ClipOutcome
    from actcli.ingest.plan import Estimate as Estimate
    from actcli.ingest.plan import ExtractPlan as ExtractPlan
    from actcli.ingest.plan import SplitCount as SplitCount
    from actcli.ingest.records import UNLABELLED as UNLABELLED
    from actcli.ingest.records import ClipRecord as ClipRecord
    from actcli.ingest.records import DatasetAdapter as DatasetAdapter
    from actcli.ingest.records import Listing as Listing
    from actcli.ingest.split import SplitRule as SplitRule
    from actcli.ingest.summary import ExtractProgress as ExtractProgress
    from actcli.ingest.summary import ExtractSummary as ExtractSummary
    from actcli.ingest.synthetic import make_synthetic as make_synthetic
else:

    def __getattr__(name: str) -> object:
        """A name of this package, from the module that it is in."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})

"""From downloaded footage and official annotations to one file of frames per clip.

``inspect_dataset`` is in ``actcli.ingest.inspect``, since it alone needs pandas.
"""

from actcli.ingest.card import DatasetCard
from actcli.ingest.datasets import describe_dataset, get_dataset, list_datasets
from actcli.ingest.extract import extract_dataset, plan_extraction
from actcli.ingest.flow import dequantise, flow_to_colour
from actcli.ingest.manifest import MANIFEST_SCHEMA, payload_path, read_manifest
from actcli.ingest.options import ExtractOptions
from actcli.ingest.outcome import ClipOutcome
from actcli.ingest.plan import Estimate, ExtractPlan, SplitCount
from actcli.ingest.records import UNLABELLED, ClipRecord, DatasetAdapter, Listing
from actcli.ingest.split import SplitRule
from actcli.ingest.summary import ExtractProgress, ExtractSummary
from actcli.ingest.synthetic import make_synthetic

__all__ = [
    "MANIFEST_SCHEMA",
    "UNLABELLED",
    "ClipOutcome",
    "ClipRecord",
    "DatasetAdapter",
    "DatasetCard",
    "Estimate",
    "ExtractOptions",
    "ExtractPlan",
    "ExtractProgress",
    "ExtractSummary",
    "Listing",
    "SplitCount",
    "SplitRule",
    "dequantise",
    "describe_dataset",
    "extract_dataset",
    "flow_to_colour",
    "get_dataset",
    "list_datasets",
    "make_synthetic",
    "payload_path",
    "plan_extraction",
    "read_manifest",
]

"""The shard format: WebDataset tars, a parquet index for random access, DALI's index, and ``dataset.json``."""

from actcli.shards.card import SHARD_FORMAT_VERSION, Coverage, ShardCard, ShardFile
from actcli.shards.forecast import ShardForecast, forecast_shards
from actcli.shards.index import ShardIndex
from actcli.shards.options import ShardOptions
from actcli.shards.reader import ShardReader, ShardSet
from actcli.shards.verify import Finding, verify_shards
from actcli.shards.writer import ShardSummary, write_shards

__all__ = [
    "SHARD_FORMAT_VERSION",
    "Coverage",
    "Finding",
    "ShardCard",
    "ShardFile",
    "ShardForecast",
    "ShardIndex",
    "ShardOptions",
    "ShardReader",
    "ShardSet",
    "ShardSummary",
    "forecast_shards",
    "verify_shards",
    "write_shards",
]

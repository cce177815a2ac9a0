"""The shard format: WebDataset tars, a parquet index for random access, DALI's index, and ``dataset.json``."""

from actcli.shards.card import SHARD_FORMAT_VERSION, Coverage, ShardCard, ShardFile
from actcli.shards.forecast import ShardForecast, forecast_shards
from actcli.shards.index import ShardIndex
from actcli.shards.options import ShardOptions
from actcli.shards.reader import ShardReader, ShardSet
from actcli.shards.selection import Selection, select_shards
from actcli.shards.subset import WHOLE, Subset, read_keys
from actcli.shards.verify import Finding, verify_shards
from actcli.shards.writer import ShardSummary, write_shards

__all__ = [
    "SHARD_FORMAT_VERSION",
    "WHOLE",
    "Coverage",
    "Finding",
    "Selection",
    "ShardCard",
    "ShardFile",
    "ShardForecast",
    "ShardIndex",
    "ShardOptions",
    "ShardReader",
    "ShardSet",
    "ShardSummary",
    "Subset",
    "forecast_shards",
    "read_keys",
    "select_shards",
    "verify_shards",
    "write_shards",
]

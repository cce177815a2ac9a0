"""What a parquet file would take in memory, told before it is taken: few bytes may stand for gigabytes."""

from collections.abc import Container

import pyarrow as pa
import pyarrow.parquet as pq

MAX_EXPANSION = 32
FREE_EXPANSION_BYTES = 256 << 20
"""A file may take this much memory, and ``MAX_EXPANSION`` times its size more."""
_BATCH_ROWS = 1000


def check_expansion(file: pq.ParquetFile, wanted: Container[str]) -> None:
    """Raise ``ValueError`` where the numbers and lists of the wanted columns would take much more than they are."""
    metadata = file.metadata
    chunks = [
        metadata.row_group(g).column(c) for g in range(metadata.num_row_groups) for c in range(metadata.num_columns)
    ]
    columns = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] in wanted]
    needed = sum(max(8 * column.num_values, column.total_uncompressed_size) for column in columns)
    _refuse(needed, sum(column.total_compressed_size for column in columns))


def check_texts(file: pq.ParquetFile, schema: pa.Schema, num_bytes: int) -> None:
    """The same for the texts of a file of so many bytes: one may stand for many rows, so they are read in parts."""
    leaves = [file.schema.column(number) for number in range(len(file.schema.names))]
    names = {leaf.path.split(".")[0] for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"}
    wanted = pa.schema([field for field in schema if field.name in names])
    taken = 0
    for batch in file.iter_batches(_BATCH_ROWS, columns=wanted.names):
        taken += pa.Table.from_batches([batch]).select(wanted.names).cast(wanted).nbytes
        _refuse(taken, num_bytes)


def _refuse(needed: int, stored: int) -> None:
    if needed > FREE_EXPANSION_BYTES + MAX_EXPANSION * stored:
        raise ValueError(f"its {stored} bytes would take {needed / 1e9:.1f} GB of memory")

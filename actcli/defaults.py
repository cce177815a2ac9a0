"""Numbers that a command line and the library both name; importing them costs nothing."""

CACHE_BYTES = 100 << 30
"""Size of a folder that keeps what was read of shards behind a URL."""

"""Where backends get the encoded pictures of a plan."""

import os
import zlib

from actcli.errors import ActcliError
from actcli.loaders.plan import BatchPlan, WantedPictures
from actcli.shards import ShardSet
from actcli.shards.cache import CachedReader, reader_maker
from actcli.shards.reader import Range
from actcli.shards.stream import Encoded, RetryingReader


class PictureSource:
    """Where the encoded pictures come from: the shards, opened in the process that reads, or the plan itself."""

    def __init__(self, shards: ShardSet) -> None:
        self._shards = shards
        self._reader: RetryingReader | CachedReader | None = None
        self._process = -1
        self._inline: memoryview | None = None

    def begin(self, plan: BatchPlan) -> None:
        """Get ready for the pictures of ``plan``."""
        self._inline = None if plan.inline is None else memoryview(plan.inline)
        if self._process != os.getpid():
            self._reader, self._process = reader_maker(self._shards, checks=False)(), os.getpid()

    def pictures(self, wanted: WantedPictures) -> list[Encoded]:
        """The bytes of each picture that is wanted.

        Raises:
            ActcliError: They are not those that were packed.
        """
        pictures = self._read(wanted.shard, wanted.offsets, wanted.sizes)
        for number, crc in enumerate(wanted.crcs):
            if zlib.crc32(pictures[number]) != crc:
                what = f"frame {wanted.frames[number]}" if len(pictures) == len(wanted.frames) else "the video"
                what = f"packet {number} of those that were read" if wanted.video else what
                raise ActcliError(f"the bytes of {what} have changed since they were packed")
        return pictures

    def _read(self, shard: str, offsets: list[int], sizes: list[int]) -> list[Encoded]:
        places = zip(offsets, sizes, strict=True)
        if self._inline is not None:
            return [self._inline[offset : offset + size] for offset, size in places]
        assert self._reader is not None
        return self._reader.read_ranges([Range(shard, offset, offset + size) for offset, size in places])

"""In which order the clips come: pure functions of (seed, epoch, rank, world size, position).

Training shuffles the whole epoch; rank ``r`` takes the places ``r, r + world_size, …`` of it:

    epoch order   7 2 9 4 0 5 1 8 3 6      (10 clips, 2 ranks, batches of 2)
    rank 0        7 9 | 0 1 |
    rank 1        2 4 | 5 8 |              3 and 6 are dropped (or, kept, make a last batch of one clip each)

Evaluation does the same with the clips in their own order. All ranks always make the same number of steps, and no clip
comes twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actcli.errors import ActcliError


@dataclass(frozen=True)
class Order:
    """How one epoch is cut into batches."""

    num_clips: int
    """Clips of the whole split, over all ranks."""
    batch_size: int
    """Clips per batch and rank."""
    shuffle: bool
    """Whether the epoch is shuffled (training)."""
    drop_last: bool
    """Whether clips that do not fill a global batch are left out."""
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        """Check the numbers together."""
        if self.batch_size < 1 or not 0 <= self.rank < self.world_size:
            raise ActcliError(
                f"batch size {self.batch_size}, rank {self.rank} of {self.world_size}: "
                "the batch size must be at least 1 and the rank below the number of ranks."
            )
        if self.drop_last and not self.num_steps:
            of_each = f" on each of {self.world_size} processes" if self.world_size > 1 else ""
            raise ActcliError(
                f"{self.num_clips} clips do not fill one batch of {self.batch_size}{of_each}. Lower batch_size "
                "(--batch-size)."
            )

    @property
    def num_steps(self) -> int:
        """Batches per epoch, the same on every rank."""
        global_batch = self.batch_size * self.world_size
        return self.num_clips // global_batch if self.drop_last else -(-self.num_clips // global_batch)

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """Rows of the index in the order of this epoch, for all ranks together, ``[num_clips]``."""
        if not self.shuffle:
            return np.arange(self.num_clips)
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(self.num_clips)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """This rank's batches from ``first_step`` on: ``(rows, positions)``.

        ``rows`` index the split, ``positions`` are the clips' places in the epoch order: random draws hang on them, so
        that they do not change with the number of ranks. A batch may be empty when there are fewer clips than ranks.
        """
        order = self.epoch(epoch)
        return ((order[positions], positions) for positions in self.positions(first_step))

    def positions(self, first_step: int = 0) -> Iterator[NDArray[np.int64]]:
        """The places in the epoch order of this rank's batches from ``first_step`` on; the same in every epoch."""
        used = self.num_steps * self.batch_size * self.world_size if self.drop_last else self.num_clips
        mine = np.arange(self.rank, used, self.world_size)  # this rank's positions in the epoch order
        for step, begin, end in self._cuts(len(mine)):
            if step >= first_step:
                yield mine[begin:end]

    def _cuts(self, num_clips: int) -> Iterator[tuple[int, int, int]]:
        """``(step, begin, end)`` of each batch: full ones first, keeping a clip for each later step.

        9 clips, batches of 4, 3 steps -> 4 4 1.     4 clips, batches of 4, 2 steps -> 3 1.
        """
        begin = 0
        for step in range(self.num_steps):
            steps_after = self.num_steps - step - 1
            end = begin + min(self.batch_size, max(num_clips - begin - steps_after, 0))
            yield step, begin, end
            begin = end

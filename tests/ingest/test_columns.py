import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from actcli.errors import ActcliError
from actcli.ingest import columns
from actcli.ingest.columns import make_column
from actcli.ingest.manifest import VIDEO_TYPE

SIZES = [np.array([7, 2**32 - 1], np.uint32), np.zeros(0, np.uint32), np.array([3], np.uint32)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["", "a", "Jürgen", "\U0001f3c3 \n"], pa.string()),
        ([True, False, *[True] * 9], pa.bool_()),
        ([0, -1, 2**62], pa.int64()),
        ([0.0, 29.97, -1e300], pa.float64()),
        (SIZES, pa.list_(pa.int64())),
        ([{}, {"1": "train", "2": "test"}, {"1": "ä"}], pa.map_(pa.string(), pa.string())),
        ([None, None], VIDEO_TYPE),
        ([None, {"container": "mp4", "key_packets": [0, 4]}], VIDEO_TYPE),
    ],
)
def test_columns_are_those_that_arrow_makes(values, kind):
    made = make_column(values, kind)
    made.validate(full=True)
    assert made.type == kind
    usual = [list(value.items()) for value in values] if pa.types.is_map(kind) else values
    assert made.equals(pa.array(usual, kind))


def test_splits_are_in_the_order_of_their_names():
    made = make_column([{"2": "b", "1": "a"}], pa.map_(pa.string(), pa.string()))
    assert made.to_pylist() == [[("1", "a"), ("2", "b")]]


def test_more_bytes_than_arrow_counts_are_refused():
    class Long:
        def __len__(self):
            return 1 << 30

    assert columns._borders([Long()]).tolist() == [0, 1 << 30]
    with pytest.raises(ActcliError, match="The names of 2 clips take more than 2 GB"):
        columns._borders([Long(), Long()])


def test_an_extraction_imports_neither_pandas_nor_torch(tiny_raw, tmp_path):
    program = """
import sys
from pathlib import Path
from actcli.ingest import ExtractOptions, extract_dataset
summary = extract_dataset(ExtractOptions("tiny", Path(sys.argv[1]), Path(sys.argv[2]), executor="serial"))
print(summary.counts["ok"], {"pyarrow", "pandas", "torch", "fsspec"} & set(sys.modules))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(tiny_raw), str(tmp_path / "frames")]
    done = subprocess.run(command, text=True, capture_output=True, env=environment)
    assert (done.stdout, done.stderr) == ("24 {'pyarrow'}\n", "")

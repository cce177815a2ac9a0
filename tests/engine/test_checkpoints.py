"""A checkpoint is whole or absent, and nothing in it can run."""

import io
import os
import pickle
from pathlib import Path

import pytest
import torch

from actcli.engine.checkpoints import load_checkpoint, save_checkpoint
from actcli.errors import ActcliError


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {"model": {"weight": torch.arange(3.0)}, "progress": {"epoch": 2, "history": [{"loss": 0.5}]}}
    save_checkpoint(tmp_path / "deep" / "last.ckpt", state)
    found = load_checkpoint(tmp_path / "deep" / "last.ckpt")
    assert torch.equal(found["model"]["weight"], state["model"]["weight"])
    assert found["progress"] == state["progress"]


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, save):
    save({"version": 1, "model": Malicious(tmp_path / "was here")}, tmp_path / "last.ckpt")
    with pytest.raises(ActcliError, match="is no checkpoint of actcli, or is damaged"):
        load_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\\x03\\x04"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(ActcliError, match=r"last\.ckpt is no checkpoint of actcli, or is damaged"):
        load_checkpoint(tmp_path / "last.ckpt")


def test_a_pipe_in_place_of_a_checkpoint_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "last.ckpt")
    with pytest.raises(ActcliError, match="no regular file"):
        load_checkpoint(tmp_path / "last.ckpt")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(ActcliError, match=r"last\.ckpt does not exist: the run was stopped before its first"):
        load_checkpoint(tmp_path / "last.ckpt")


def test_another_version_is_refused(tmp_path):
    torch.save({"version": 99}, tmp_path / "last.ckpt")
    with pytest.raises(ActcliError, match="has version 99, this actcli reads 2"):
        load_checkpoint(tmp_path / "last.ckpt")


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"epoch": 1})
    with pytest.raises(Exception, match="local object"):
        save_checkpoint(path, {"epoch": lambda: 2})
    assert load_checkpoint(path)["epoch"] == 1


class Interrupted(io.BytesIO):
    """A file whose third write is interrupted by Ctrl-C."""

    num_writes = 0

    def write(self, data):
        self.num_writes += 1
        if self.num_writes == 3:
            raise KeyboardInterrupt
        return super().write(data)


def test_ctrl_c_while_writing_stays_ctrl_c(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "open", lambda path, mode: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "last.ckpt", {"weights": torch.zeros(100_000)})

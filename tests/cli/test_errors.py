"""What goes wrong is said in one sentence, with what to type next."""

import io
import re
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from actcli.cli import _console
from actcli.cli._app import COMMANDS
from actcli.cli._console import cell, table
from actcli.cli._help import paragraphs
from actcli.errors import ActcliError

from .conftest import TINY


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(actcli, command):
    result = actcli(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_every_option_has_a_help_text():
    import typer

    from actcli.cli import app

    group = typer.main.get_command(app)
    bare = [
        f"{name} {parameter.opts[0]}"
        for name, command in group.commands.items()
        for parameter in command.params
        if not getattr(parameter, "help", None)
    ]
    assert bare == []


def _commands(group, name=""):
    for command_name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{command_name} ")
        else:
            yield name + command_name, command


def _words(text):
    return set(re.split(r"[\s,│<>|]+", text))


def test_help_cuts_no_word_at_80_columns(actcli, monkeypatch):
    import typer

    from actcli.cli import app

    monkeypatch.setenv("COLUMNS", "80")
    for name, command in _commands(typer.main.get_command(app)):
        shown = _words(actcli(f"{name} --help").output)
        for option in [parameter for parameter in command.params if parameter.param_type_name == "option"]:
            wanted = {*option.opts, *(option.type_descriptor.choices or ()), *_words(option.help.replace("\\[", "["))}
            if isinstance(option.show_default, str):
                wanted |= _words(f"({option.show_default})]")
            assert wanted <= shown, f"{name}: {wanted - shown}"


def test_a_paragraph_of_help_is_broken_where_the_line_ends():
    assert paragraphs("One\ntwo.\n\nThree\nfour.") == "One two.\n\nThree four."


def test_a_full_disk_behind_the_output_is_an_error_in_a_sentence():
    code = "from actcli.cli import main; main()"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code, "recipes"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: what this command writes cannot be written or read (No space left")
    assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr


def test_ctrl_c_while_the_program_is_imported_leaves_no_traceback():
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from actcli.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


TOLD_TO_END = """
import os, signal, sys, tempfile
import actcli.shards
from actcli.cli._app import main

def stopped(*_, **named):
    with tempfile.TemporaryDirectory(dir=sys.argv[-1]):
        os.kill(os.getpid(), signal.SIGTERM)

actcli.shards.verify_shards = stopped
sys.argv = ["actcli", "verify", "--shards-dir", sys.argv[1]]
main()
"""


def test_sigterm_leaves_nothing_in_the_folder_of_temporary_files(tmp_path):
    command = [sys.executable, "-c", TOLD_TO_END, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, list(tmp_path.iterdir())) == (128 + signal.SIGTERM, []), done.stderr
    assert "stopped. Nothing was kept of the unfinished work." in done.stderr + done.stdout


def test_the_package_is_the_program():
    done = subprocess.run([sys.executable, "-m", "actcli", "--version"], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("actcli ")


def test_a_note_is_broken_where_the_line_ends_its_first_word_included(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(_console, "console", Console(file=shown, width=20))
    _console.print_note("seven [b]words[/b] of one note here")
    assert max(map(len, shown.getvalue().splitlines())) <= 20
    assert shown.getvalue().split() == ["note:", "seven", "[b]words[/b]", "of", "one", "note", "here"]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("predict a.mp4 --weights w.safetensors --run absent", "--weights says already which one is meant"),
        ("export --weights w.safetensors --checkpoint last", "leave out --checkpoint"),
        ("cam a.mp4 --worst 3", "leave out --worst"),
        ("verify --shards-dir there --dataset other", "leave out --dataset"),
        ("train --model tsm --shards-dir there --dataset other", "leave out --dataset"),
    ],
)
def test_flags_that_would_not_be_used_are_refused(actcli, command, sentence):
    result = actcli(command)
    assert result.exit_code in (1, 2)
    assert sentence in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize("command", ["recipes", "doctor"])
def test_without_torch_a_command_that_needs_it_says_so_in_a_sentence(command):
    script = "import sys; sys.modules['torch'] = None; from actcli.cli import app; app(prog_name='actcli')"
    done = subprocess.run([sys.executable, "-c", script, command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    if command == "doctor":
        assert re.search(r"GPUs +unknown without torch", done.stdout)
    else:
        assert (done.returncode, done.stderr.count("needs the package torch, which is not installed")) == (1, 1)


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from actcli.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'pandas', 'cv2', 'numpy', 'av', 'pyarrow', 'timm'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "extract" in done.stdout


def test_the_version_is_told(actcli):
    from actcli import __version__

    assert actcli("--version").output == f"actcli {__version__}\n"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("extract", r"there is no raw data in"),
        ("extract --dataset sthv2", r"raw/sthv2"),
        ("shard", "Extract a dataset first: actcli extract --dataset sthv2"),
        ("train --model tsm", "Write them first: actcli extract --dataset sthv2 && actcli shard"),
        ("eval --crops 3 --clips 2", "Train one first: actcli train --model tsm"),
        ("verify", "there are no shards in"),
        ("inspect", "there are no frames in"),
        ("bench loader", "there are no shards in"),
        ("ensemble one two", "'one' is neither a run nor a folder with scores.parquet"),
    ],
)
def test_without_data_a_command_says_what_to_do(actcli, tmp_path, command, sentence):
    result = actcli(f"{command} --workspace {tmp_path}")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith("error: ") or command == "extract --dataset sthv2"
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_the_missing_official_files_are_named(actcli, tmp_path):
    result = actcli(f"extract --dataset sthv2 --workspace {tmp_path}")
    assert "something-something-v2-labels.json, -train.json" in result.output


@pytest.mark.parametrize(
    ("folder", "command"),
    [("raw", "extract"), ("shards", "train --model tsm"), ("shards", "verify"), ("frames", "inspect")],
)
def test_several_datasets_are_listed_with_the_flag(actcli, tmp_path, folder, command):
    for name in ("ucf101", "sthv2"):
        (tmp_path / folder / name).mkdir(parents=True)
    result = actcli(f"{command} --workspace {tmp_path}")
    assert result.exit_code == 1
    assert "there are several datasets: sthv2, ucf101. Choose one with --dataset." in result.output


def test_the_workspace_can_come_from_the_environment(actcli, tmp_path, monkeypatch):
    monkeypatch.setenv("ACTCLI_WORKSPACE", str(tmp_path / "there"))
    assert str(tmp_path / "there" / "runs") in actcli("eval").output


@pytest.mark.parametrize(
    "command",
    [
        "extract --no-such-flag",
        "extract --modality depth",
        "extract --layout zip",
        "extract --executor slurm",
        "shard --payload avi",
        "fly",
        "train --epochs many",
        "train --epochs 0",
        "train --precision 8-true",
        "train --loader fast",
        "train --checkpoint-minutes -1",
        "eval --checkpoint middle",
        "eval --crops 0",
        "eval --size 5",
        "import",
        "ensemble",
    ],
)
def test_wrong_usage_exits_with_2(actcli, command):
    assert actcli(command).exit_code == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train --model tsm --precision bf16", "Allowed are: 32-true, bf16-mixed, 16-mixed; did you mean bf16-mixed?"),
        ("train --model tsm --precision FP8", "'FP8' is unknown. Allowed are: 32-true, bf16-mixed, 16-mixed."),
        ("train --model tsm --loader gpu", "'gpu' is unknown. Allowed are: auto, cpu, dali."),
        ("extract --executor proceses", "did you mean processes?"),
    ],
)
def test_a_word_that_an_option_does_not_take_is_answered_with_what_it_takes(actcli, words, told):
    result = actcli(words)
    assert result.exit_code == 2
    assert told in " ".join(result.output.replace("│", " ").split())
    assert "Value error" not in result.output


def test_debug_shows_the_error_itself(actcli, tmp_path):
    result = actcli(f"--debug eval --workspace {tmp_path}")
    assert isinstance(result.exception, ActcliError)


def test_an_unknown_model_lists_the_models(actcli, done):
    for command in (f"train --model i3d {done.space}", "models i3d"):
        result = actcli(command)
        assert result.exit_code == 1
        assert "no model 'i3d'" in result.output
        assert "tsm" in result.output


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("", "say which model to train: actcli train --model tsm"),
        ("--model tsm --recipe gsf-something-r50-16f", "is for gsf, not tsm"),
        ("--recipe no-such", "there is no recipe 'no-such'"),
        (f"--model tsm {TINY} --set epoch=3", "unknown field epoch"),
        (f"--model tsm {TINY} --set epochs=many", "epochs is 'many': input should be a valid integer"),
        (f"--model tsm {TINY} --sampling often", "unknown sampling 'often'"),
        (f"--model tsm {TINY} --learning-rate -1", "learning_rate is -1.0: input should be greater than 0"),
        (f"--model tsm {TINY} --learning-rate 0", "learning_rate is 0.0: input should be greater than 0"),
        (f"--model tsm {TINY} --new-head", "new_head (--new-head) replaces the classifier of weights"),
        (f"--model tsm {TINY} --backbone vgg", "vgg"),
        (f"--model tsm {TINY} --split-id 2", "no split set '2'"),
        (f"--model tsm {TINY} --split-id 2 --dry-run", "no split set '2'"),
        (f"--model tsm {TINY} --batch-size 40 --dry-run", "18 training clips do not fill one batch of 40"),
        ("--resume --run-dir absent", "absent is no run"),
        (f"--model tsm {TINY} --init absent.safetensors", "there are no weights at absent.safetensors"),
        (f"--model tsm {TINY} --pretrained absent.pth", "absent.pth"),
        ("--model vit --frames 2 --size 32 --pretrained none --modality flow --batch-size 2 --workers 0", "modality"),
    ],
)
def test_a_wrong_training_is_refused_in_one_sentence_and_leaves_no_run(actcli, done, tmp_path, flags, sentence):
    (tmp_path / "shards").symlink_to(done.root / "shards")
    result = actcli(f"train {flags} --workspace {tmp_path}")
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert sentence in result.output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--run absent", "there is no run 'absent'"),
        ("--crops 4", "4"),
        ("--clips 1000", "clips is 1000; it has to be at least 1 and at most 100"),
        ("--split test", "no split 'test'"),
        ("--weights absent.safetensors", "there are no weights at absent.safetensors"),
        ("--all-splits", "--all-splits"),
        ("--split-id 2", "no split set '2'; it has 1"),
    ],
)
def test_a_wrong_evaluation_is_refused_in_one_sentence(actcli, done, flags, sentence):
    result = actcli(f"eval {flags} --workers 0 {done.space}")
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert sentence in result.output
    assert [folder.name for folder in (done.run / "eval").iterdir() if not any(folder.iterdir())] == []


@pytest.mark.parametrize(
    "flags",
    [
        "--weights w.safetensors --run absent",
        "--weights w.safetensors --checkpoint last",
        "--weights w.safetensors --all-splits",
        "--all-splits --out-dir there",
        "--all-splits --run absent",
        "--run absent --run-dir there",
    ],
)
def test_an_evaluation_refuses_flags_that_it_would_not_use(actcli, done, flags):
    result = actcli(f"eval {flags} --workers 0 {done.space}")
    assert result.exit_code == 2, result.output
    assert "says already which one is meant" in result.output


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("shard --short-side 64", "add --payload video"),
        ("import absent.pth --from tsm", "there is no checkpoint at absent.pth"),
        ("verify --shards-dir absent", "absent"),
        ("export --to onnx --out model.pt2", "model.pt2 is the name of a file for torch, and --to is onnx"),
    ],
)
def test_other_wrong_requests_are_refused_in_one_sentence(actcli, done, command, sentence):
    space = "" if command.startswith("import") else done.space
    result = actcli(f"{command} {space}")
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert sentence in result.output


def test_code_in_a_foreign_checkpoint_is_not_run(actcli, tmp_path):
    import pickle

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(print, 2))
    result = actcli(f"import {tmp_path / 'evil.pth'} --from tsm --num-classes 6")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("error", [MemoryError(), ImportError("x.so: failed to map segment from shared object")])
def test_too_little_memory_is_one_sentence(actcli, monkeypatch, tmp_path, error):
    monkeypatch.setattr("actcli.shards.verify_shards", lambda *_, **__: (_ for _ in ()).throw(error))
    result = actcli("verify", "--shards-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "there is not enough memory for this command" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("nosuch", "there is no recipe 'nosuch'"), ("tsm-finetune-r50-8f", "shown by: actcli recipes show tsm-finetune")],
)
def test_the_name_of_a_recipe_in_place_of_a_command_is_answered(actcli, name, sentence):
    result = actcli("recipes", name)
    assert result.exit_code == 1
    assert sentence in result.output


def test_a_name_in_a_table_has_no_line_break_of_its_own_and_leaves_room_for_other_columns():
    listing = table("video", "class", "#probability")
    listing.add_row(cell("a\nb.mp4"), "falling down", "12.3 %")
    listing.add_row(cell("日本語のとても長い名前" * 4), "falling down", "12.3 %")  # two columns a letter
    narrow = Console(width=80, file=io.StringIO())
    narrow.print(listing)
    shown = narrow.file.getvalue()
    assert "a\\nb.mp4" in shown
    assert shown.count("falling down") == 2


@pytest.mark.parametrize("name", ["20260131-235959-tokshift-kinetics400-16f-split2", "x" * 90])
def test_a_table_on_a_narrow_terminal_cuts_no_name_and_no_number(name):
    listing = table("run", "state", "what it is", "#epochs", "#best top-1")
    listing.add_row(name, "unfinished", "a long description of what this run is about", "100/100", "12.34")
    narrow = Console(width=80, file=io.StringIO())
    narrow.print(listing)
    shown = narrow.file.getvalue()
    first_column = "".join(line[1:].split(" ")[0] for line in shown.splitlines()[3:])
    assert name in first_column
    assert "100/100" in shown
    assert "12.34" in shown

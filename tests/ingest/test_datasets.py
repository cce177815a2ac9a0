import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actcli.errors import ActcliError
from actcli.ingest import UNLABELLED, describe_dataset, get_dataset, list_datasets


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def labels(listing) -> dict[str, int]:
    return {record.source_id: record.label for record in listing.records}


def splits(listing) -> dict[str, dict[str, str]]:
    return {record.source_id: dict(record.splits) for record in listing.records}


# Something-Something V2

V2_CLASSES = {"Juggling something": "2", "Balancing something on something": "0", "Hiding something": "1"}
V2_TRAIN = [
    {"id": "10", "label": "juggling lemons", "template": "Juggling [something]", "placeholders": ["lemons"]},
    {"id": "9", "label": "balancing, a pen", "template": "Balancing [something] on [something]", "placeholders": []},
]
V2_VAL = [{"id": "101", "label": "hiding key", "template": "Hiding [something]", "placeholders": ["key"]}]


def make_sthv2(root: Path, prefix: str) -> Path:
    for name, value in (("labels", V2_CLASSES), ("train", V2_TRAIN), ("validation", V2_VAL), ("test", [{"id": "11"}])):
        write(root / f"{prefix}{name}.json", json.dumps(value))
    return root


@pytest.mark.parametrize("prefix", ["labels/", "something-something-v2-", "labels/something-something-v2-"])
def test_sthv2_reads_both_annotation_packages(tmp_path, prefix):
    listing = get_dataset("sthv2").read(make_sthv2(tmp_path, prefix))
    assert listing.classes == ("Balancing something on something", "Hiding something", "Juggling something")
    assert [record.source_id for record in listing.records] == ["9", "10", "11", "101"]
    assert labels(listing) == {"9": 0, "10": 2, "11": UNLABELLED, "101": 1}
    assert listing.split_sets == {"1": ("train", "val", "test")}
    assert listing.records[0].path == "20bn-something-something-v2/9.webm"


def test_sthv2_takes_the_labels_of_test_clips_from_the_answers(tmp_path):
    make_sthv2(tmp_path, "labels/")
    write(tmp_path / "labels/test-answers.csv", "11;Juggling something\r\n")
    assert labels(get_dataset("sthv2").read(tmp_path))["11"] == 2


def test_sthv2_template_may_begin_with_a_bracket(tmp_path):
    make_sthv2(tmp_path, "labels/")
    write(tmp_path / "labels/labels.json", json.dumps({**V2_CLASSES, "Something falling": "3"}))
    falling = [{"id": "5", "label": "pen falling", "template": "[Something] falling"}]
    write(tmp_path / "labels/train.json", json.dumps(falling))
    assert labels(get_dataset("sthv2").read(tmp_path))["5"] == 3


def test_sthv2_refuses_a_template_that_is_no_class(tmp_path):
    make_sthv2(tmp_path, "labels/")
    write(tmp_path / "labels/train.json", json.dumps([{"id": "5", "label": "x", "template": "Eating [something]"}]))
    with pytest.raises(ActcliError, match="'Eating something'"):
        get_dataset("sthv2").read(tmp_path)


def test_sthv2_names_every_missing_annotation_file_at_once(tmp_path):
    write(tmp_path / "labels/labels.json", "{}")
    with pytest.raises(ActcliError, match=r"train\.json .*validation\.json"):
        get_dataset("sthv2").read(tmp_path)


def test_sthv2_says_which_file_is_no_json(tmp_path):
    make_sthv2(tmp_path, "labels/")
    write(tmp_path / "labels/train.json", "<html>403</html>")
    with pytest.raises(ActcliError, match=r"train\.json is not a JSON file"):
        get_dataset("sthv2").read(tmp_path)


def test_something_pairs_are_swapped_by_name():
    swaps = get_dataset("sthv2").flip_swaps
    assert len(swaps) == 3
    assert ("Pulling something from left to right", "Pulling something from right to left") in swaps
    assert get_dataset("sthv1").flip_swaps == swaps


# Something-Something V1 and Jester


def make_semicolon(root: Path, stem: str) -> Path:
    write(root / f"{stem}-labels.csv", "Waving, slowly\r\nClapping\r\nNo gesture\r\n")
    write(root / f"{stem}-train.csv", "20;Waving, slowly\r\n3;Clapping\r\n")
    write(root / f"{stem}-validation.csv", "100;No gesture\r\n")
    write(root / f"{stem}-test.csv", "7\r\n")
    return root


def test_sthv1_sorts_classes_and_ids(tmp_path):
    listing = get_dataset("sthv1").read(make_semicolon(tmp_path, "something-something-v1"))
    assert listing.classes == ("Clapping", "No gesture", "Waving, slowly")
    assert labels(listing) == {"3": 0, "7": UNLABELLED, "20": 2, "100": 1}
    assert listing.records[0].path == "20bn-something-something-v1/3"


def test_jester_keeps_the_order_of_its_label_file(tmp_path):
    listing = get_dataset("jester").read(make_semicolon(tmp_path, "jester-v1"))
    assert listing.classes == ("Waving, slowly", "Clapping", "No gesture")
    assert labels(listing) == {"3": 1, "7": UNLABELLED, "20": 0, "100": 2}
    assert listing.flip == "forbidden"


def test_jester_reads_the_newer_package(tmp_path):
    write(tmp_path / "labels/labels.csv", "Waving\nClapping\n")
    write(tmp_path / "labels/train.csv", "1;Waving\n")
    write(tmp_path / "labels/validation.csv", "2;Clapping\n")
    write(tmp_path / "labels/test.csv", "3\n")
    write(tmp_path / "labels/test-answers.csv", "3;Clapping\n")
    assert labels(get_dataset("jester").read(tmp_path)) == {"1": 0, "2": 1, "3": 1}


def test_a_clip_that_is_listed_twice_gives_a_warning(tmp_path):
    make_semicolon(tmp_path, "jester-v1")
    write(tmp_path / "jester-v1-validation.csv", "3;No gesture\n")
    listing = get_dataset("jester").read(tmp_path)
    assert splits(listing)["3"] == {"1": "train"}
    assert "listed more than once (3" in listing.warnings[0]


# Kinetics


def make_kinetics(root: Path) -> Path:
    header = "label,youtube_id,time_start,time_end,split,is_cc\r\n"
    write(root / "annotations/train.csv", header + "yawning,-_aaBBccDD-,12,22,train,0\r\n"
          '"massaging person\'s head",AbCdEfGhIj0,0.0,10.0,train,0\r\n')  # fmt: skip
    write(
        root / "annotations/validate.csv", header + "passing American football (in game),_x_00000112,103,113,val,0\r\n"
    )
    write(root / "annotations/test.csv", "youtube_id,time_start,time_end,split\r\nTestTestTes,5,15,test\r\n")
    return root


def test_kinetics_sorts_classes_by_label_text(tmp_path):
    listing = get_dataset("kinetics400").read(make_kinetics(tmp_path))
    assert listing.classes == ("massaging person's head", "passing American football (in game)", "yawning")
    assert labels(listing) == {
        "-_aaBBccDD-_000012_000022": 2,
        "AbCdEfGhIj0_000000_000010": 0,
        "TestTestTes_000005_000015": UNLABELLED,
        "_x_00000112_000103_000113": 1,
    }
    assert splits(listing)["_x_00000112_000103_000113"] == {"1": "val"}


@pytest.mark.parametrize(
    "name",
    [
        "val/passing_American_football_(in_game)/_x_00000112_000103_000113.mp4",
        "videos_val/passing American football in game/_x_00000112_000103_000113.mkv",
        "validate/_x_00000112_103.mp4",
        "val_256/_x_00000112_000103.webm",
        "_x_00000112_103_113.mp4",
    ],
)
def test_kinetics_finds_a_clip_whatever_its_folder_and_spelling(tmp_path, name):
    write(make_kinetics(tmp_path) / name)
    record = {r.source_id: r for r in get_dataset("kinetics400").read(tmp_path).records}["_x_00000112_000103_000113"]
    assert (record.path, record.start, record.end) == (name, None, None)


def test_kinetics_gives_seconds_for_a_file_named_like_the_whole_video(tmp_path):
    write(make_kinetics(tmp_path) / "val/_x_00000112.mp4")
    record = {r.source_id: r for r in get_dataset("kinetics400").read(tmp_path).records}["_x_00000112_000103_000113"]
    assert (record.path, record.start, record.end) == ("val/_x_00000112.mp4", 103.0, 113.0)


def test_kinetics_prefers_the_file_in_the_folder_of_its_split(tmp_path):
    write(make_kinetics(tmp_path) / "a_train/_x_00000112_000103_000113.mp4")
    write(tmp_path / "b_val/_x_00000112_000103_000113.mp4")
    assert "b_val/_x_00000112_000103_000113.mp4" in {r.path for r in get_dataset("kinetics400").read(tmp_path).records}


def test_kinetics_says_when_the_header_is_missing(tmp_path):
    make_kinetics(tmp_path)
    write(tmp_path / "annotations/train.csv", "yawning,-_aaBBccDD-,12,22,train\n")
    with pytest.raises(ActcliError, match="must name the columns"):
        get_dataset("kinetics400").read(tmp_path)


def test_kinetics_names_both_missing_lists(tmp_path):
    with pytest.raises(ActcliError, match=r"no train\.csv; no val\.csv"):
        get_dataset("kinetics600").read(tmp_path)


def test_kinetics_refuses_two_lists_of_one_split(tmp_path):
    make_kinetics(tmp_path)
    write(tmp_path / "annotations/val.csv", "label,youtube_id,time_start,time_end,split\n")
    with pytest.raises(ActcliError, match="two lists for val"):
        get_dataset("kinetics400").read(tmp_path)


# UCF101


def make_ucf(root: Path) -> Path:
    write(root / "ucfTrainTestlist/classInd.txt", "1 YoYo\r\n2 HandstandPushups\r\n")
    for split_id in "123":
        write(root / f"ucfTrainTestlist/trainlist0{split_id}.txt", "YoYo/v_YoYo_g08_c01.avi 1\r\n")
        write(
            root / f"ucfTrainTestlist/testlist0{split_id}.txt",
            "HandstandPushups/v_HandStandPushups_g01_c01.avi\r\nYoYo/v_YoYo_g01_c01.avi\r\n",
        )
    write(root / "ucfTrainTestlist/testlist02.txt", "YoYo/v_YoYo_g01_c01.avi\r\n")
    return root


def test_ucf101_keeps_the_order_of_class_ind(tmp_path):
    listing = get_dataset("ucf101").read(make_ucf(tmp_path))
    assert listing.classes == ("YoYo", "HandstandPushups")
    assert labels(listing)["HandstandPushups/v_HandStandPushups_g01_c01.avi"] == 1
    assert splits(listing)["YoYo/v_YoYo_g08_c01.avi"] == {"1": "train", "2": "train", "3": "train"}
    assert splits(listing)["HandstandPushups/v_HandStandPushups_g01_c01.avi"] == {"1": "test", "3": "test"}


@pytest.mark.parametrize("folder", ["HandstandPushups", "HandStandPushups"])
@pytest.mark.parametrize("name", ["v_HandStandPushups_g01_c01.avi", "v_HandstandPushups_g01_c01.avi"])
def test_ucf101_finds_handstand_pushups_in_every_spelling(tmp_path, folder, name):
    write(make_ucf(tmp_path) / "UCF-101" / folder / name)
    assert f"UCF-101/{folder}/{name}" in {r.path for r in get_dataset("ucf101").read(tmp_path).records}


def test_ucf101_refuses_class_numbers_with_a_gap(tmp_path):
    write(make_ucf(tmp_path) / "ucfTrainTestlist/classInd.txt", "1 YoYo\n3 HandstandPushups\n")
    with pytest.raises(ActcliError, match="do not run from 1 to 2"):
        get_dataset("ucf101").read(tmp_path)


# HMDB51

ODD_NAME = "#20_Rhythm_(clap)!_&_M\u00fcller_clap_u_nm_np1_fr_goo_0.avi"


def make_hmdb(root: Path) -> Path:
    for class_name, name in (("wave", "a wave_1.avi"), ("clap", ODD_NAME)):
        for split_id, code in (("1", 1), ("2", 2), ("3", 0)):
            text = f"{name} {code} \n"
            write(root / f"testTrainMulti_7030_splits/{class_name}_test_split{split_id}.txt", text)
    return root


def test_hmdb51_leaves_code_0_out_of_the_split_set(tmp_path):
    listing = get_dataset("hmdb51").read(make_hmdb(tmp_path))
    assert listing.classes == ("clap", "wave")
    assert splits(listing) == {
        f"clap/{ODD_NAME}": {"1": "train", "2": "test"},
        "wave/a wave_1.avi": {"1": "train", "2": "test"},
    }


@pytest.mark.parametrize("form", [ODD_NAME, ODD_NAME.replace("\u00fc", "u\u0308")])
def test_hmdb51_finds_accents_in_either_unicode_form(tmp_path, form):
    write(make_hmdb(tmp_path) / "hmdb51_org/clap" / form)
    record = get_dataset("hmdb51").read(tmp_path).records[0]
    assert record.path == f"hmdb51_org/clap/{form}"


def test_hmdb51_reads_lists_in_latin_1(tmp_path):
    make_hmdb(tmp_path)
    path = tmp_path / "testTrainMulti_7030_splits/clap_test_split1.txt"
    path.write_bytes(f"{ODD_NAME} 1 \n".encode("latin-1"))
    assert splits(get_dataset("hmdb51").read(tmp_path))[f"clap/{ODD_NAME}"]["1"] == "train"


def test_hmdb51_names_a_missing_list(tmp_path):
    (make_hmdb(tmp_path) / "testTrainMulti_7030_splits/wave_test_split2.txt").unlink()
    with pytest.raises(ActcliError, match=r"wave_test_split2\.txt"):
        get_dataset("hmdb51").read(tmp_path)


# Folders


def test_folder_takes_the_split_from_train_and_val_folders(tmp_path):
    for name in ("train/b/x 1#.mp4", "val/a/y.MKV", "test/a/z.webm", "train/b/notes.txt", "train/.cache/q.mp4"):
        write(tmp_path / name)
    listing = get_dataset("mine").read(tmp_path)
    assert listing.classes == ("a", "b")
    assert splits(listing) == {
        "test/a/z.webm": {"1": "test"},
        "train/b/x 1#.mp4": {"1": "train"},
        "val/a/y.MKV": {"1": "val"},
    }


def test_folder_with_train_and_test_alone_has_splits(tmp_path):
    for name in ("train/a/1.mp4", "test/a/2.mp4"):
        write(tmp_path / name)
    listing = get_dataset("mine").read(tmp_path)
    assert (listing.classes, listing.split_sets) == (("a",), {"1": ("train", "test")})


def test_folder_may_have_a_class_called_train(tmp_path):
    for name in ("train/1.mp4", "bus/2.mp4"):
        write(tmp_path / name)
    assert get_dataset("mine").read(tmp_path).classes == ("bus", "train")


def test_folder_follows_links(tmp_path):
    write(tmp_path / "elsewhere/1.mp4")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a").symlink_to(tmp_path / "elsewhere")
    assert [record.path for record in get_dataset("mine").read(tmp_path / "raw").records] == ["a/1.mp4"]


def test_folder_takes_split_folders_inside_the_classes(tmp_path):
    for name in ("wave/train/1.mp4", "wave/val/2.mp4", "clap/train/3.mp4"):
        write(tmp_path / name)
    listing = get_dataset("mine").read(tmp_path)
    assert listing.classes == ("clap", "wave")
    assert splits(listing)["wave/val/2.mp4"] == {"1": "val"}


@pytest.mark.parametrize("word", ["val", "Valid", "validate", "validation"])
def test_folder_knows_every_word_for_validation(tmp_path, word):
    for name in ("train/a/1.mp4", f"{word}/a/2.mp4"):
        write(tmp_path / name)
    listing = get_dataset("mine").read(tmp_path)
    assert (listing.classes, listing.split_sets) == (("a",), {"1": ("train", "val")})


def test_folder_knows_the_split_folders_of_other_tools(tmp_path):
    for name in ("rawframes_train/a/x/img_00001.jpg", "rawframes_val/a/y/img_00001.jpg"):
        write(tmp_path / name)
    listing = get_dataset("mine").read(tmp_path)
    assert listing.classes == ("a",)
    assert splits(listing)["rawframes_val/a/y"] == {"1": "val"}


def test_classes_that_speak_of_splits_stay_classes(tmp_path):
    for name in ("train station/cam/1.mp4", "test drive/cam/2.mp4"):
        write(tmp_path / name)
    assert get_dataset("mine").read(tmp_path).classes == ("test drive", "train station")


def test_split_folders_beside_other_folders_are_refused(tmp_path):
    for name in ("train/a/1.mp4", "val/a/2.mp4", "extra/a/3.mp4"):
        write(tmp_path / name)
    with pytest.raises(ActcliError, match="split folders train, val and beside them 'extra'"):
        get_dataset("mine").read(tmp_path)


def test_folder_without_splits_is_left_undivided(tmp_path):
    for name in ("a/1.mp4", "b/2.mp4"):
        write(tmp_path / name)
    listing = get_dataset("mine").read(tmp_path)
    assert not listing.is_divided
    assert splits(listing) == {"a/1.mp4": {}, "b/2.mp4": {}}


def test_files_that_are_no_videos_are_counted_by_suffix(tmp_path):
    for name in ("a/1.mp4", "a/2.xyz", "b/3.XYZ", "b/4.vob", "c/5.m2ts", "c/6.asf", "c/notes"):
        write(tmp_path / name)
    listing = get_dataset("mine").read(tmp_path)
    assert [record.path for record in listing.records] == ["a/1.mp4", "b/4.vob", "c/5.m2ts", "c/6.asf"]
    assert listing.warnings == ("Passed over 3 files that are no videos: 2 .xyz, 1 without suffix.",)


def test_a_pipe_under_a_videos_name_is_told_from_a_file(tmp_path):
    write(tmp_path / "a/1.mp4")
    os.mkfifo(tmp_path / "a" / "2.mp4")
    warnings = get_dataset("mine").read(tmp_path).warnings
    assert warnings[0] == "Passed over 1 file that is no video: 1 pipe, socket or device."


def test_videos_in_no_class_folder_are_counted(tmp_path):
    for name in ("a/1.mp4", "2.mp4", "3.mp4"):
        write(tmp_path / name)
    assert "Passed over 2 clips" in get_dataset("mine").read(tmp_path).warnings[0]


def test_folders_of_numbered_jpegs_are_clips(tmp_path):
    for name in ("a/one/img_00001.jpg", "a/one/img_00002.jpg", "b/two.x/00001.jpg", "b/flow/flow_x_00001.jpg"):
        write(tmp_path / name)
    listing = get_dataset("mine").read(tmp_path)
    assert listing.storage == "frames"
    assert [record.path for record in listing.records] == ["a/one", "b/flow", "b/two.x"]


def test_folders_that_link_to_each_other_are_walked_once(tmp_path):
    write(tmp_path / "a/1.mp4")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert [record.path for record in get_dataset("mine").read(tmp_path).records] == ["a/1.mp4"]


def test_a_named_pipe_is_no_clip(tmp_path):
    write(tmp_path / "a/1.mp4")
    os.mkfifo(tmp_path / "a/2.mp4")
    assert [record.path for record in get_dataset("mine").read(tmp_path).records] == ["a/1.mp4"]


# Lists of an own dataset


def test_a_csv_names_paths_labels_and_splits(tmp_path):
    write(tmp_path / "list.csv", "path,label,split\nv/1.mp4,wave,train\nv/2.mp4,clap,validation\n3.mp4,,test\n")
    listing = get_dataset("mine").read(tmp_path)
    assert listing.classes == ("clap", "wave")
    assert labels(listing) == {"3.mp4": UNLABELLED, "v/1.mp4": 1, "v/2.mp4": 0}
    assert splits(listing)["v/2.mp4"] == {"1": "val"}


def test_a_csv_without_splits_is_left_undivided_and_numbers_sort_by_value(tmp_path):
    write(tmp_path / "list.csv", "label;path\n10;b.mp4\n9;a.mp4\n")
    listing = get_dataset("mine").read(tmp_path)
    assert (listing.classes, listing.is_divided) == (("9", "10"), False)


def test_one_csv_a_split_takes_the_split_from_the_file_name(tmp_path):
    write(tmp_path / "train.csv", "path,label\n1.mp4,a\n")
    write(tmp_path / "val.csv", "path,label\n2.mp4,a\n")
    assert splits(get_dataset("mine").read(tmp_path)) == {"1.mp4": {"1": "train"}, "2.mp4": {"1": "val"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,split\n1.mp4,a,maybe\n", "line 2: '1.mp4,a,maybe'"),
        ("path,label,split\n1.mp4,a,train\n2.mp4,a,\n", "1 clips have no split, others have: '2.mp4'"),
        ("path,label\n1.mp4,a\n1.mp4,b\n", "1 clips are listed twice"),
        ("path,label\n1.mp4,a\n2.mp4,\n", "1 clips for training or validation have no class: '2.mp4'"),
        ("path,label\n../1.mp4,a\n", "name no file in the raw folder: '../1.mp4'"),
        ("path,label\n/etc/1.mp4,a\n", "name no file in the raw folder: '/etc/1.mp4'"),
    ],
)
def test_a_wrong_csv_is_refused_by_name(tmp_path, text, message):
    write(tmp_path / "list.csv", text)
    with pytest.raises(ActcliError) as error:
        get_dataset("mine").read(tmp_path)
    assert message in str(error.value)


def test_lists_of_the_tsn_family_name_frames_and_labels(tmp_path):
    write(tmp_path / "train_videofolder.txt", "wave/a b 12 1\nclap/c 9 0\n")
    write(tmp_path / "val_videofolder.txt", "wave/d 12 1\n")
    write(tmp_path / "notes.txt", "no list")
    listing = get_dataset("mine").read(tmp_path)
    assert (listing.classes, listing.storage) == (("clap", "wave"), "frames")
    assert labels(listing) == {"clap/c": 0, "wave/a b": 1, "wave/d": 1}
    assert splits(listing)["wave/d"] == {"1": "val"}


def test_lists_take_class_names_from_the_category_file(tmp_path):
    write(tmp_path / "train_videofolder.txt", "1 12 1\n2 9 0\n")
    write(tmp_path / "val_videofolder.txt", "3 12 1\n")
    assert get_dataset("mine").read(tmp_path).classes == ("class 0", "class 1")
    write(tmp_path / "category.txt", "clap\nwave\n")
    assert get_dataset("mine").read(tmp_path).classes == ("clap", "wave")


def test_two_lists_for_one_split_are_refused(tmp_path):
    write(tmp_path / "train_split_1.txt", "a 12 1\n")
    write(tmp_path / "train_split_2.txt", "b 12 1\n")
    with pytest.raises(ActcliError, match="keep one for each of train, val and test"):
        get_dataset("mine").read(tmp_path)


def test_a_damaged_list_line_is_named(tmp_path):
    write(tmp_path / "train_videofolder.txt", "a 12 1\nb 12 x\n")
    with pytest.raises(ActcliError, match=r"train_videofolder\.txt, line 2: 'b 12 x'"):
        get_dataset("mine").read(tmp_path)


def test_folder_reads_what_mirroring_does(tmp_path):
    for name in ("turn left/a.mp4", "turn right/b.mp4"):
        write(tmp_path / name)
    assert "turn left" in get_dataset("mine").read(tmp_path).warnings[0]
    write(tmp_path / "flip.json", '{"flip": "swap", "flip_swaps": [["turn left", "turn right"]]}')
    listing = get_dataset("mine").read(tmp_path)
    assert (listing.flip, listing.flip_swaps, listing.warnings) == ("swap", (("turn left", "turn right"),), ())


@pytest.mark.parametrize(
    "text", ["nonsense", "[]", '{"flip": "maybe"}', '{"flip": "swap", "flip_swaps": [["a", "q"]]}']
)
def test_folder_refuses_a_wrong_flip_file(tmp_path, text):
    write(tmp_path / "a/x.mp4")
    write(tmp_path / "flip.json", text)
    with pytest.raises(ActcliError, match=r"flip\.json"):
        get_dataset("mine").read(tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_forbids_mirroring_is_read_or_refused_but_not_passed_over(tmp_path, make):
    write(tmp_path / "a/x.mp4")
    make(tmp_path / "flip.json")
    with pytest.raises(ActcliError, match=r"flip\.json is no regular file"):
        get_dataset("mine").read(tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
@pytest.mark.parametrize("name", ["list.csv", "train.csv", "train_videofolder.txt"])
def test_a_list_that_is_no_file_is_refused_and_not_passed_over(tmp_path, make, name):
    write(tmp_path / "a/x.mp4")
    make(tmp_path / name)
    with pytest.raises(ActcliError, match=f"{name} is no regular file"):
        get_dataset("mine").read(tmp_path)


# Damage of any kind


def make_own_csv(root: Path) -> None:
    write(root / "list.csv", "path,label,split\nv/1.mp4,wave,train\nv/2.mp4,clap,val\n")


def make_own_lists(root: Path) -> None:
    write(root / "train_videofolder.txt", "a/1 12 0\nb/2 13 1\n")
    write(root / "val_videofolder.txt", "a/3 12 0\n")
    write(root / "category.txt", "x\ny\n")


PIECES = [
    "\0",
    "\x00",
    "\n",
    '"',
    ",",
    ";",
    "[",
    "]",
    "{",
    "null",
    "1e999",
    "NaN",
    "-1",
    "..",
    "/",
    "\\ud800",
    " ",
    "\t",
    "é",
]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("sthv2", lambda root: make_sthv2(root, "labels/")),
        ("sthv1", lambda root: make_semicolon(root, "something-something-v1")),
        ("jester", lambda root: make_semicolon(root, "jester-v1")),
        ("kinetics400", make_kinetics),
        ("ucf101", make_ucf),
        ("hmdb51", make_hmdb),
        ("diving48", lambda root: make_diving(root)),
        ("mine", make_own_csv),
        ("mine", make_own_lists),
    ],
)
@settings(max_examples=40)
@given(data=st.data())
def test_a_damaged_annotation_file_is_read_or_refused(tmp_path_factory, name, make, data):
    root = tmp_path_factory.mktemp("raw")
    make(root)
    path = data.draw(st.sampled_from(sorted(path for path in root.rglob("*") if path.is_file())))
    content = path.read_bytes()
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 12)))
    path.write_bytes(content[:start] + data.draw(st.sampled_from(PIECES)).encode() + content[end:])
    with contextlib.suppress(ActcliError):
        get_dataset(name).read(root)


# The registry


def test_every_dataset_says_what_it_expects_when_the_raw_folder_is_missing(tmp_path):
    for adapter in list_datasets():
        with pytest.raises(ActcliError) as error:
            adapter.read(tmp_path / "nothing")
        assert adapter.expects in str(error.value)


def test_an_unknown_name_is_said_to_be_unknown(tmp_path):
    with pytest.raises(ActcliError, match="sthv3, no known dataset and so one of your own videos, is expected like"):
        get_dataset("sthv3").read(tmp_path / "sthv3")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ssv2", "sthv2"),
        ("SthSth-v2", "sthv2"),
        ("something-something-v1", "sthv1"),
        ("k400", "kinetics400"),
        ("kinetics", "kinetics400, kinetics600 or kinetics700"),
        ("Kinetics-700", "kinetics700"),
        ("ucf", "ucf101"),
        ("UCF-101", "ucf101"),
        ("hmdb", "hmdb51"),
        ("20bn-jester", "jester"),
    ],
)
def test_other_names_of_known_datasets_are_understood(name, meant):
    for look_up in (get_dataset, describe_dataset):
        with pytest.raises(ActcliError, match=f"did you mean {meant}"):
            look_up(name)


def test_describing_an_unknown_dataset_lists_the_known():
    with pytest.raises(ActcliError, match=r"There is no dataset 'nosuch'\. Known are: sthv2, sthv1"):
        describe_dataset("nosuch")


@pytest.mark.parametrize(
    ("make", "meant"),
    [
        (lambda root: make_sthv2(root, "labels/"), "sthv2"),
        (lambda root: write(root / "20bn-something-something-v2/1.webm"), "sthv2"),
        (lambda root: make_semicolon(root, "something-something-v1"), "sthv1"),
        (lambda root: make_semicolon(root, "jester-v1"), "jester"),
        (lambda root: make_kinetics(root), "kinetics400"),
        (lambda root: make_ucf(root), "ucf101"),
        (lambda root: make_hmdb(root), "hmdb51"),
    ],
)
def test_a_known_dataset_under_an_own_name_is_recognised(tmp_path, make, meant):
    make(tmp_path)
    with pytest.raises(ActcliError, match=f"did you mean {meant}"):
        get_dataset("mine").read(tmp_path)


# Lists that are wrong


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_row_without_its_class_is_refused_but_in_test_lists(tmp_path, split):
    make_sthv2(tmp_path, "labels/")
    rows = [{"id": str(number)} for number in range(7)]
    write(tmp_path / f"labels/{split}.json", json.dumps(rows))
    write(tmp_path / "labels/test.json", json.dumps([{"id": "70"}]))
    with pytest.raises(ActcliError, match=r"7 clips .* have no class: '0', '1', '2', '3', '4', …"):
        get_dataset("sthv2").read(tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        "{}",
        "[1]",
        "[[]]",
        "[null]",
        '[{"label": "x"}]',
        '[{"id": null}]',
        '[{"id": "1", "template": 3}]',
        "[" * 100_000,
    ],
    ids=str.__len__,
)
def test_sthv2_refuses_every_other_shape_of_list(tmp_path, value):
    make_sthv2(tmp_path, "labels/")
    write(tmp_path / "labels/train.json", value)
    with pytest.raises(ActcliError, match=r"train\.json"):
        get_dataset("sthv2").read(tmp_path)


@pytest.mark.parametrize("source_id", ["../../outside", "a\\u0000b", "\\ud800"])
def test_an_id_that_leads_out_of_the_raw_folder_is_refused(tmp_path, source_id):
    make_sthv2(tmp_path, "labels/")
    rows = f'[{{"id": "{source_id}", "template": "Juggling [something]"}}]'
    write(tmp_path / "labels/train.json", rows)
    with pytest.raises(ActcliError, match="name no file in the raw folder"):
        get_dataset("sthv2").read(tmp_path)


@pytest.mark.parametrize("name", ["sthv2", "sthv1", "jester", "kinetics400", "ucf101", "hmdb51", "diving48"])
def test_folders_where_lists_are_expected_are_refused(tmp_path, name):
    make = {
        "sthv2": lambda root: make_sthv2(root, "labels/"),
        "sthv1": lambda root: make_semicolon(root, "something-something-v1"),
        "jester": lambda root: make_semicolon(root, "jester-v1"),
        "kinetics400": make_kinetics,
        "ucf101": make_ucf,
        "hmdb51": make_hmdb,
        "diving48": make_diving,
    }[name]
    make(tmp_path)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        path.unlink()
        path.mkdir()
    with pytest.raises(ActcliError):
        get_dataset(name).read(tmp_path)


@pytest.mark.parametrize("line", ["YoYo", "x YoYo", "1"])
def test_ucf101_refuses_other_lines_in_class_ind(tmp_path, line):
    write(make_ucf(tmp_path) / "ucfTrainTestlist/classInd.txt", f"{line}\n")
    with pytest.raises(ActcliError, match=r"classInd\.txt has the line"):
        get_dataset("ucf101").read(tmp_path)


@pytest.mark.parametrize("time", ["nan", "inf", "-5", "ten", "1e300"])
def test_kinetics_refuses_times_that_are_none(tmp_path, time):
    make_kinetics(tmp_path)
    header = "label,youtube_id,time_start,time_end,split\n"
    write(tmp_path / "annotations/train.csv", f"{header}yawning,AAAAAAAAAAA,{time},22,train\n")
    with pytest.raises(ActcliError, match="has no times in seconds"):
        get_dataset("kinetics400").read(tmp_path)


def test_published_splits_add_up_to_the_total():
    for adapter in list_datasets():
        counts = adapter.published_counts
        if adapter.storage == "frames" or adapter.name == "sthv2":
            assert counts["train"] + counts["val"] + counts["test"] == counts["total"]


def test_names_that_are_no_folder_are_refused():
    for name in ("../x", "", "a/b", ".hidden"):
        with pytest.raises(ActcliError, match="cannot name a dataset"):
            get_dataset(name)


def make_diving(root: Path, version: str = "V2_") -> Path:
    """Two classes; ``b`` is in the test list."""
    write(root / "Diving48_vocab.json", json.dumps([["Back", "15som", "05Twis", "FREE"], ["Forward", "25som", "PIKE"]]))
    for split, name, label in (("train", "a_00001", 1), ("test", "b_00002", 0)):
        dive = {"vid_name": name, "label": label, "start_frame": 0, "end_frame": 90}
        write(root / f"Diving48_{version}{split}.json", json.dumps([dive]))
    return root


def test_diving48_takes_classes_in_the_order_of_the_vocabulary(tmp_path):
    listing = get_dataset("diving48").read(make_diving(tmp_path))
    assert listing.classes == ("Back 15som 05Twis FREE", "Forward 25som PIKE")
    assert [(r.source_id, r.label, r.path, r.splits) for r in listing.records] == [
        ("a_00001", 1, "rgb/a_00001.mp4", {"1": "train"}),
        ("b_00002", 0, "rgb/b_00002.mp4", {"1": "test"}),
    ]


def test_diving48_reads_version_1_and_mixes_it_with_nothing(tmp_path):
    make_diving(tmp_path, version="")
    assert labels(get_dataset("diving48").read(tmp_path)) == {"a_00001": 1, "b_00002": 0}
    (tmp_path / "Diving48_test.json").rename(tmp_path / "Diving48_V2_test.json")
    with pytest.raises(ActcliError, match="different versions"):
        get_dataset("diving48").read(tmp_path)


@pytest.mark.parametrize("dive", [{"vid_name": "a", "label": 2}, {"vid_name": "a", "label": True}, {"label": 0}, []])
def test_diving48_refuses_other_objects(tmp_path, dive):
    write(make_diving(tmp_path) / "Diving48_V2_train.json", json.dumps([dive]))
    with pytest.raises(ActcliError, match=r"Diving48_V2_train\.json (holds|gives)"):
        get_dataset("diving48").read(tmp_path)

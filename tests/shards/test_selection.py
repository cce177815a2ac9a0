"""Some clips of one or several folders of shards, seen as shards of their own."""

from dataclasses import replace

import numpy as np
import pytest

from actcli.errors import ActcliError
from actcli.ingest import ExtractOptions, extract_dataset, make_synthetic
from actcli.loaders import open_loader
from actcli.shards import ShardOptions, ShardReader, ShardSet, Subset, select_shards, write_shards


def make(root, name, **options):
    make_synthetic(root / "raw" / name, num_clips=24, size=(64, 48), num_frames=4, **options)
    return pack(root, name)


def pack(root, name):
    extract_dataset(ExtractOptions(name, root / "raw" / name, root / "frames" / name, short_side=0, executor="serial"))
    write_shards(ShardOptions(root / "frames" / name, root / name))
    return root / name


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Six classes, 18 training and 6 validation clips."""
    return make(tmp_path_factory.mktemp("one"), "one")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The same, but with a class that is called differently."""
    root = tmp_path_factory.mktemp("other")
    make_synthetic(root / "raw" / "other", num_clips=24, size=(64, 48), num_frames=4, seed=1)
    for split in ("train", "val"):
        (root / "raw" / "other" / split / "growing").rename(root / "raw" / "other" / split / "swelling")
    return pack(root, "other")


def keys(shards, split="train"):
    return shards.index(split).keys.tolist()


def class_counts(shards, split="train"):
    return np.bincount(shards.index(split).labels, minlength=len(shards.card.classes)).tolist()


def test_all_clips_of_one_folder_are_the_folder_itself(one):
    assert select_shards([one]) == ShardSet.open(one)


def test_classes_are_counted_anew_in_the_order_of_the_dataset(one):
    classes = ShardSet.open(one).card.classes
    shards = select_shards([one], Subset(classes=(classes[3], classes[1])))
    assert shards.card.classes == (classes[1], classes[3])
    assert class_counts(shards) == [3, 3]
    assert shards.card.split_sets["1"] == {"train": 6, "val": 2}


def test_a_smaller_fraction_is_a_part_of_a_larger_one_and_takes_of_each_class(one):
    third, two_thirds = (select_shards([one], Subset(fraction=share)) for share in (1 / 3, 2 / 3))
    assert class_counts(third) == [1] * 6
    assert class_counts(two_thirds) == [2] * 6
    assert set(keys(third)) < set(keys(two_thirds))


def test_a_maximum_keeps_what_a_fraction_keeps_first(one):
    assert keys(select_shards([one], Subset(max_clips_per_class=1))) == keys(
        select_shards([one], Subset(fraction=1 / 3))
    )


def test_another_seed_keeps_other_clips(one):
    assert keys(select_shards([one], Subset(fraction=1 / 3))) != keys(
        select_shards([one], Subset(fraction=1 / 3, seed=1))
    )


def test_clips_are_left_out_by_key_or_by_name(one):
    whole = ShardSet.open(one)
    key, name = f"{whole.index('train').keys[0]:09d}", whole.clip_names("train")[5]
    shards = select_shards([one], Subset(exclude_keys=(key, name)))
    assert shards.clip_names("train") == tuple(n for i, n in enumerate(whole.clip_names("train")) if i not in (0, 5))
    assert shards.left_out("train") == "2 of 18 clips of train (without 2 listed clips)"
    assert shards.left_out("val") == ""


def test_the_bytes_of_a_chosen_clip_are_its_own(one, other):
    whole, shards = ShardSet.open(other), select_shards([one, other], Subset(classes=("swelling",)))
    mine, theirs = shards.index("train"), whole.index("train")
    row = theirs.keys.tolist().index(int(mine.keys[-1]) - 100_000_000)
    clip, same = mine.clip(len(mine) - 1), theirs.clip(row)
    read = ShardReader(shards.root).read(clip.shard, clip.offset, clip.bytes)
    assert read == ShardReader(whole.root).read(same.shard, same.offset, same.bytes)
    assert clip.frame_sizes.tolist() == same.frame_sizes.tolist()
    assert clip.frame_crcs.tolist() == same.frame_crcs.tolist()


def test_folders_are_joined_by_the_names_of_their_classes(one, other):
    shards = select_shards([one, other])
    assert shards.card.classes == (*ShardSet.open(one).card.classes, "swelling")
    assert shards.card.name == "one+other"
    assert len(set(keys(shards))) == 36
    counts = dict(zip(shards.card.classes, class_counts(shards), strict=True))
    assert (counts["growing"], counts["swelling"], counts["shrinking"]) == (3, 3, 6)


def test_joined_folders_give_the_pixels_of_each(one, other):
    def pixels(shards):
        with open_loader(shards, "val", num_frames=2, size=32, workers=0, batch_size=4) as loader:
            return {int(k): clip for batch in loader for k, clip in zip(batch.keys, batch.clips, strict=True)}

    joined, first, second = pixels([one, other]), pixels(one), pixels(other)
    assert joined.keys() == first.keys() | {key + 100_000_000 for key in second}
    assert all((joined[key] == clip).all() for key, clip in first.items())
    assert all((joined[key + 100_000_000] == clip).all() for key, clip in second.items())


def test_labels_can_be_counted_as_a_model_counts_them(one):
    classes = ("zero", *reversed(ShardSet.open(one).card.classes))
    shards = select_shards([one], Subset(classes=classes[2:3]), labelled_as=classes)
    assert shards.card.classes == classes
    assert set(shards.index("train").labels.tolist()) == {2}
    with pytest.raises(ActcliError, match="of other classes than the 1 that labels are to count by"):
        select_shards([one], labelled_as=classes[:1])


def test_a_class_whose_mirror_image_is_left_out_is_not_mirrored(one):
    whole = ShardSet.open(one)
    left, right = next(pair for pair in whole.card.flip_swaps)
    assert whole.card.flip == "swap"
    assert select_shards([one], Subset(classes=(left, right))).card.flip == "swap"
    assert select_shards([one], Subset(classes=(left, "growing"))).card.flip == "forbidden"


def test_a_loader_does_not_go_on_with_another_subset(one):
    with open_loader(one, num_frames=2, size=32, workers=0, batch_size=2) as loader:
        state = loader.state_dict()
    less = open_loader(one, num_frames=2, size=32, workers=0, batch_size=2, subset=Subset(fraction=0.9))
    with less, pytest.raises(ActcliError, match="belongs to another setup"):
        less.load_state_dict(state)


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        (Subset(classes=("growning",)), "one has no class 'growning'; did you mean 'growing'?"),
        (Subset(exclude_keys=("nothing",)), "none of the 1 clips to leave out is there, such as 'nothing'"),
    ],
)
def test_what_is_not_there_is_refused(one, subset, message):
    with pytest.raises(ActcliError) as error:
        select_shards([one], subset)
    assert message in str(error.value)


@pytest.mark.parametrize("wrong", [{"fraction": 0.0}, {"fraction": 1.5}, {"max_clips_per_class": 0}])
def test_numbers_that_leave_nothing_are_refused(wrong):
    with pytest.raises(ActcliError, match="it has to be"):
        Subset(**wrong)


def test_the_same_shards_twice_are_refused(one):
    with pytest.raises(ActcliError, match="holds the same shards as another folder"):
        select_shards([one, one])


def test_classes_that_differ_in_spelling_only_are_refused(one, tmp_path):
    root = tmp_path / "raw" / "third"
    make_synthetic(root, num_clips=24, size=(64, 48), num_frames=4, seed=2)
    for split in ("train", "val"):
        (root / split / "growing").rename(root / split / "Growing")
    third = pack(tmp_path, "third")
    with pytest.raises(ActcliError, match=r"class 'growing' of .* is spelled 'Growing' in"):
        select_shards([one, third])
    assert select_shards([one, third], Subset(classes=("shrinking",))).card.split_sets["1"]["train"] == 6


def test_classes_that_are_mirrored_differently_are_refused(one, other, monkeypatch):
    opened = {str(root): ShardSet.open(root) for root in (one, other)}
    opened[str(other)] = replace(opened[str(other)], card=replace(opened[str(other)].card, flip_swaps=()))
    monkeypatch.setattr(ShardSet, "open", staticmethod(lambda root: opened[str(root)]))
    with pytest.raises(
        ActcliError, match=r"clips of 'moving left' are of class 'moving right' in .* and of class 'moving left' in"
    ):
        select_shards([one, other])
    assert select_shards([one, other], Subset(classes=("shrinking",))).card.classes == ("shrinking",)


def test_a_clip_of_one_family_in_two_folders_is_refused(one, other, monkeypatch):
    opened = {str(root): ShardSet.open(root) for root in (one, other)}
    named = {root: replace(shards, card=replace(shards.card, name="kinetics400")) for root, shards in opened.items()}
    monkeypatch.setattr(ShardSet, "open", staticmethod(lambda root: named[str(root)]))
    with pytest.raises(ActcliError, match=r"clip '.*' is in train of .* and in train of"):
        select_shards([one, other])


def test_a_stream_of_some_clips_is_refused(one):
    with pytest.raises(ActcliError, match="leave shuffle_buffer out"):
        open_loader(one, shuffle_buffer=4, subset=Subset(fraction=0.5))

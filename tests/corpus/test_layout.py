"""The released CSVs as they are, and the files of a corpus."""

from collections import Counter
from pathlib import Path

import pytest
from support.small_corpus import small_corpus

from vfsearch.corpus.layout import format_identities, read_identities, scan_split, split_hash
from vfsearch.errors import CorpusError

LISTS = Path(__file__).parents[1] / "data" / "lists"


def test_released_csvs_have_the_published_counts() -> None:
    train, val, test = (
        read_identities(LISTS / f"vox1_{name}.csv") for name in ("train", "val", "test")
    )
    assert (len(train), len(val), len(test)) == (924, 112, 189)
    assert Counter(who.gender for who in train) == {"m": 485, "f": 439}
    everyone = [who.voice_id for split in (train, val, test) for who in split]
    assert len(set(everyone)) == len(everyone)


def test_rows_marked_none_are_skipped_and_only_those() -> None:
    for name in ("train", "val", "test"):
        lines = (LISTS / f"vox1_{name}.csv").read_bytes().decode().split("\r\n")[1:]
        wanted = [line.split(",")[0] for line in lines if line and not line.endswith(",none")]
        assert [who.voice_id for who in read_identities(LISTS / f"vox1_{name}.csv")] == wanted


def test_writing_and_reading_is_the_identity(tmp_path: Path) -> None:
    people = read_identities(LISTS / "vox1_val.csv")
    (tmp_path / "a.csv").write_bytes(format_identities(people, "dev").encode())
    assert (tmp_path / "a.csv").read_bytes().count(b"\r\n") == len(people) + 1
    assert read_identities(tmp_path / "a.csv") == people


HEAD = "VoxCeleb1_ID,VGGFace1_ID,Gender,Nationality,Set\r\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\r\n", ":1: the columns should be VoxCeleb1_ID"),
        ("", "not nothing"),
        (HEAD, "no identity is left"),
        (HEAD + "id1,A,m,USA,none\r\n", "no identity is left"),
        (HEAD + "id1,A,x,USA,dev\r\n", ":2: Gender should be m or f, not 'x'"),
        (HEAD + "id1,A,m\r\n", ":2: 5 columns should be here"),
        (HEAD + "id1,A,m,USA,dev\r\nid1,B,m,USA,dev\r\n", ":3: id1 is listed twice"),
        (HEAD + "id1,A,m,USA,dev\r\nid2,A,m,USA,dev\r\n", ":3: A is listed twice"),
        (HEAD + "../id1,A,m,USA,dev\r\n", ":2: '../id1' cannot be a folder's name"),
    ],
)
def test_a_bad_csv_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode())
    with pytest.raises(CorpusError, match=r"x\.csv") as caught:
        read_identities(path)
    assert told in str(caught.value)


def test_every_bad_line_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(HEAD + "id1,A,x,USA,dev\r\nid2,B,y,USA,dev\r\n")
    with pytest.raises(CorpusError, match=r"(?s):2: .*:3: "):
        read_identities(path)


def test_files_are_sorted_and_belong_to_their_identity(tmp_path: Path) -> None:
    config = small_corpus(tmp_path)
    split = scan_split(config, "val")
    assert len(split.voices) == len(split.faces) == 12
    for instances, key in ((split.voices, "voice_id"), (split.faces, "face_id")):
        assert [i.path for i in instances] == sorted(i.path for i in instances)
        for instance in instances:
            owner = getattr(split.identities[instance.identity], key)
            assert instance.path.split("/")[0] == owner
    assert all((config.root / config.audio / voice.path).is_file() for voice in split.voices)


def test_the_hash_follows_names_and_identities(tmp_path: Path) -> None:
    config = small_corpus(tmp_path)
    before = split_hash(scan_split(config, "val"))
    assert split_hash(scan_split(config, "val")) == before
    moved = next((tmp_path / "faces").glob("Some_One_5/*.jpg"))
    moved.rename(moved.with_name("renamed.jpg"))
    renamed = split_hash(scan_split(config, "val"))
    text = (tmp_path / "vox1_val.csv").read_text().replace("USA", "UK")
    (tmp_path / "vox1_val.csv").write_text(text)
    assert len({before, renamed, split_hash(scan_split(config, "val"))}) == 3


@pytest.mark.parametrize("gone", ["wav", "faces", "vox1_val.csv"])
def test_a_missing_part_of_the_corpus_is_named(tmp_path: Path, gone: str) -> None:
    config = small_corpus(tmp_path)
    (tmp_path / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(CorpusError, match=gone):
        scan_split(config, "val")

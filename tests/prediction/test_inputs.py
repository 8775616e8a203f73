"""Which files are labelled, and what their labels are called."""

import os

import pytest

from utils.errors import UserError
from utils.prediction.inputs import find_inputs, kind_of


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Files of two languages, something else beside them, and a hidden file."""
    for name in ("eng/1.jsonl.zst", "eng/2.jsonl", "fin/1.txt.gz", "fin/notes.md", "fin/.hidden.txt"):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "corpus"


def names(*given, output_dir="out"):
    from pathlib import Path

    root, files = find_inputs([str(word) for word in given], Path(output_dir))
    return root, [file.name for file in files]


def test_kinds():
    from pathlib import Path

    assert kind_of(Path("a.b.jsonl.zst")) == (".jsonl", ".zst")
    assert kind_of(Path("a.parquet")) == (".parquet", "")
    for other in ("a.parquet.gz", "a.json", "a.zst", "a", ".txt"):
        assert kind_of(Path(other)) is None, other


@pytest.mark.parametrize(
    "given",
    [
        ["corpus"],
        ["corpus/*/*"],
        ["corpus/eng/1.jsonl.zst", "corpus/eng/2.jsonl", "corpus/fin/1.txt.gz"],
        ["corpus/eng", "corpus/fin/*.gz"],
        ["corpus/**"],
    ],
)
def test_files_folders_and_globs_name_the_same_files(corpus, given):
    assert names(*given) == (corpus.resolve(), ["eng/1", "eng/2", "fin/1"])


def test_names_begin_at_the_folder_that_holds_all(corpus):
    assert names("corpus/eng/1.jsonl.zst") == (corpus / "eng", ["1"])
    assert names(corpus / "eng" / "*.jsonl*") == (corpus / "eng", ["1", "2"])


def test_a_file_named_twice_is_labelled_once_and_said_to_be(corpus, capsys):
    (corpus / "eng" / "again.jsonl").symlink_to(corpus / "eng" / "2.jsonl")
    assert names("corpus", "corpus/eng/2.jsonl")[1] == ["eng/1", "eng/2", "fin/1"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.endswith("is named twice; it is labelled once") for line in lines)


def test_links_that_lead_in_circles_end(corpus):
    (corpus / "fin" / "up").symlink_to(corpus, target_is_directory=True)
    (corpus / "loop.txt").symlink_to(corpus / "loop.txt")
    with pytest.raises(UserError, match=r"loop\.txt: a link to nowhere, or to itself"):
        names("corpus/loop.txt")
    with pytest.raises(UserError, match=r"loop\.txt is not a file"):
        names("corpus")
    (corpus / "loop.txt").unlink()
    assert names("corpus")[1] == ["eng/1", "eng/2", "fin/1"]


def test_labels_below_the_texts_are_no_texts(corpus, capsys):
    (corpus / "out").mkdir()
    (corpus / "out" / "1.jsonl.zst").write_bytes(b"labels")
    assert names("corpus", output_dir="corpus/out")[1] == ["eng/1", "eng/2", "fin/1"]
    assert "corpus/out is the output folder; what is in it is not labelled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["nowhere.txt"], "nowhere.txt does not exist"),
        (["nowhere/*.txt"], "no file of a kind that can be read has such a name"),
        (["corpus/fin/notes.md"], "notes.md: expected .txt, .csv"),
        (["empty"], "nothing to label in empty"),
        (["corpus/dir.txt"], "nothing to label in corpus/dir.txt"),
        (["pipe.txt"], "pipe.txt is not a file that can be read again"),
    ],
)
def test_what_cannot_be_labelled_is_named(corpus, given, message):
    (corpus.parent / "empty").mkdir()
    (corpus / "dir.txt").mkdir()
    os.mkfifo(corpus.parent / "pipe.txt")
    with pytest.raises(UserError) as error:
        names(*given)
    assert message in str(error.value)


def test_the_folder_of_the_texts_is_none_for_the_labels(corpus):
    with pytest.raises(UserError, match="the files are in the output folder corpus"):
        names("corpus", output_dir="corpus")


def test_two_files_never_share_their_labels(corpus):
    (corpus / "eng" / "2.csv").write_text("text\n")
    with pytest.raises(UserError, match=r"eng/2\.(csv|jsonl) and .*eng/2\.(csv|jsonl) would both be labelled in"):
        names("corpus")


def test_a_file_that_may_not_be_read(corpus):
    if os.geteuid() == 0:
        # Root may read everything; a name too long cannot be opened by anybody.
        with pytest.raises((UserError, OSError)):
            names("corpus/" + "x" * 300 + ".txt")
        return
    (corpus / "eng" / "2.jsonl").chmod(0)
    with pytest.raises(UserError, match="cannot be read"):
        names("corpus")

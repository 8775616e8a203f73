import numpy as np
import pytest
from datasets import Dataset

from utils.data.splits import split_validation
from utils.data.twins import hash_texts, leakage_warning, read_hashes, share_seen, text_hash, write_hashes
from utils.errors import UserError


def test_white_space_alone_makes_no_other_text():
    assert text_hash("a b\n") == text_hash("  a\t\u00a0b") != text_hash("a  B")
    assert text_hash("ab") != text_hash("a b")


def test_hashes_are_kept_and_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "hashes.npy"
    assert read_hashes(path) is None
    write_hashes(path, hash_texts(["b", "a", "b"]))
    assert read_hashes(path).tolist() == sorted({text_hash("a"), text_hash("b")})
    assert share_seen(Dataset.from_dict({"text": ["a", "c", "b ", "d"]}), read_hashes(path)) == 0.5
    path.write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"hashes\.npy: damaged"):
        read_hashes(path)


def test_one_in_a_hundred_is_no_warning():
    assert leakage_warning(0.01, "en") == ""
    assert "2.0% of the test texts of en" in leakage_warning(0.02, "en")


def test_twins_stay_on_one_side_of_the_split():
    """Drawn row by row, 87 of 100 doubled validation texts had their twin in training."""
    generator = np.random.default_rng(0)
    texts = np.concatenate([np.arange(300), np.arange(100)])
    order = generator.permutation(len(texts))
    labels, hashes = (texts % 4)[order], texts[order].astype(np.uint64)
    langs = np.array(["en", "fr"])[texts[order] % 2]
    for seed in range(5):
        train, validation = split_validation(labels, langs, 0.2, seed, hashes)
        assert not set(hashes[train]) & set(hashes[validation])
        assert len(train) + len(validation) == len(texts)
        assert 0.15 < len(validation) / len(texts) < 0.25
        again = split_validation(labels, langs, 0.2, seed, hashes)
        assert np.array_equal(validation, again[1])


def test_without_twins_the_split_is_what_it_was():
    labels, langs = np.arange(200) % 5, np.array(["en"] * 200)
    plain = split_validation(labels, langs, 0.2, 3)
    assert all(map(np.array_equal, plain, split_validation(labels, langs, 0.2, 3, np.arange(200, dtype=np.uint64))))
    with pytest.raises(UserError, match="too few for a validation part"):
        split_validation(labels, langs, 0.2, 3, np.zeros(200, dtype=np.uint64))

"""Measure how long it takes to find the nearly equal texts of a corpus, against datasketch's own index.

    python benchmarks/duplicates.py
    python benchmarks/duplicates.py --num_texts 500000

Makes texts of random words, as long as those of the web (250 words on average), one in twenty of them a copy with a
twentieth of its words replaced. Runs what check_corpus.py runs, in a process of its own: reading, measuring, finding.
The peer is MinHash and MinHashLSH of datasketch, with the same runs of words, permutations and bands, which are given
ready made; on fewer texts, because its index grows beyond memory.
"""

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

NEAR = 0.8
NUM_WORDS, MEAN_LENGTH = 50_000, 250


def write_corpus(folder: Path, num_texts: int) -> int:
    """Write a corpus; returns how many of its texts are copies."""
    generator = random.Random(1)
    words = [f"w{number:x}" for number in range(NUM_WORDS)]
    (folder / "info").mkdir(parents=True)
    (folder / "info" / "reg_abbv.json").write_text('{"IN": "IN", "OP": "OP"}')
    (folder / "info" / "lang2name.json").write_text("{}")
    path = folder / "corpus" / "train" / "xx.tsv"
    path.parent.mkdir(parents=True)
    copies, last = 0, generator.choices(words, k=MEAN_LENGTH)
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_texts):
            if number % 20 == 19:
                text, copies = list(last), copies + 1
                start = generator.randrange(max(1, len(text) - len(text) // 20))
                text[start : start + len(text) // 20] = generator.choices(words, k=len(text) // 20)
            else:
                text = last = generator.choices(words, k=max(20, int(generator.expovariate(1 / MEAN_LENGTH))))
            file.write(f"{'IN' if number % 2 else 'OP'}\t{' '.join(text)}\n")
    return copies


def find(folder: Path) -> None:
    """Find the twins and print what it took, as JSON."""
    from utils.data.corpus_load import open_corpus
    from utils.quality.duplicates import find_duplicates
    from utils.quality.rows import read_rows

    sizes, stop = [0], threading.Event()
    watcher = threading.Thread(target=watch, args=(sizes, stop), daemon=True)
    watcher.start()
    started = time.perf_counter()
    rows = read_rows(open_corpus(str(folder)), ["xx"], None)
    measured = time.perf_counter()
    found = find_duplicates(rows, NEAR)
    result = {"pairs": len(found.pairs), "reading": measured - started, "finding": time.perf_counter() - measured}
    stop.set()
    watcher.join()
    print(json.dumps(result | {"megabytes": max(sizes) / 1e6}))


def watch(sizes: list[int], stop: threading.Event) -> None:
    """Note the resident memory of this process and its children, in bytes, until told to stop."""
    import psutil

    own = psutil.Process()
    while not stop.wait(0.2):
        sizes.append(own.memory_info().rss)
        for child in own.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                sizes[-1] += child.memory_info().rss


def peer(folder: Path, num_texts: int) -> tuple[float, float]:
    """Return the seconds of our search and of datasketch's, of the same signatures."""
    from datasketch import MinHash, MinHashLSH

    from utils.data.corpus_load import open_corpus
    from utils.quality.duplicates import WEIGHTS, near_pairs
    from utils.quality.measure import PERMUTATIONS, measure

    texts = open_corpus(str(folder)).load("train", "xx").select(range(num_texts))["text"][:]
    measured = measure(texts, "xx")
    started = time.perf_counter()
    ours = {(a, b) for a, b, _ in near_pairs(measured.signatures, measured.runs, NEAR)}
    between = time.perf_counter()
    index = MinHashLSH(threshold=NEAR, num_perm=PERMUTATIONS, weights=WEIGHTS)
    theirs = set()
    for row, values in enumerate(measured.signatures):
        one = MinHash(PERMUTATIONS, hashvalues=values, scheme="affine32")
        theirs |= {(other, row) for other in index.query(one)}
        index.insert(row, one)
    ended = time.perf_counter()
    # All that we take for twins is among the pairs that the index proposes, which nobody has compared yet.
    assert ours <= theirs
    return between - started, ended - between


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_texts", type=int, default=50_000, help="texts of the corpus")
    parser.add_argument("--peer_texts", type=int, default=20_000, help="texts that datasketch's index is given")
    parser.add_argument("--find", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.find:
        find(Path(options.find))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "corpus"
        copies = write_corpus(folder, options.num_texts)
        command = [sys.executable, __file__, "--find", str(folder)]
        out = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        ours, theirs = peer(folder, min(options.peer_texts, options.num_texts))
    seconds = out["reading"] + out["finding"]
    print(f"{options.num_texts:,} texts, {copies:,} of them copies; {out['pairs']:,} pairs of twins found")
    print(f"reading and measuring {out['reading']:.1f} s, finding {out['finding']:.1f} s, {out['megabytes']:,.0f} MB")
    print(f"{options.num_texts / seconds:,.0f} texts/s")
    print(f"search of the same signatures: {ours:.2f} s, datasketch's index {theirs:.2f} s ({theirs / ours:.1f} x)")


if __name__ == "__main__":
    main()

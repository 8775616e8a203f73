"""Files dealt out among jobs, or among the processes of one, so that all have about as much to do."""

from collections.abc import Sequence
from dataclasses import dataclass

# Bytes of a piece of a file; to start a process for less takes longer than to label it.
SMALLEST = 1 << 16


@dataclass(frozen=True)
class Piece:
    """A file, or some of its parts: those whose number, divided by `of`, leaves `share`.

    Attributes:
        name: of the file.
        size: of the file, in bytes.
        share: which parts.
        of: among how many its parts are dealt out.
    """

    name: str
    size: int
    share: int = 0
    of: int = 1

    @property
    def weight(self) -> float:
        """About how much there is to do."""
        return self.size / self.of

    def cut(self, count: int) -> "list[Piece]":
        """Return the piece in so many pieces: part k of all goes to the one with k % (of * count) == share."""
        return [Piece(self.name, self.size, self.share + self.of * index, self.of * count) for index in range(count)]


def deal_out(pieces: Sequence[Piece], count: int, smallest: int = SMALLEST) -> list[list[Piece]]:
    """Deal files out; files larger than a share are cut. Shares without files are left out.

    Each piece goes to the share that has least so far, large ones first (Graham 1969, "Bounds on Multiprocessing Timing
    Anomalies": the largest share has at most 4/3 of what the best distribution would give it).

    Args:
        pieces: the files.
        count: number of shares.
        smallest: bytes of a piece below which nothing is gained by cutting.
    """
    even = max(smallest, sum(piece.weight for piece in pieces) / count)
    cut = [part for piece in pieces for part in piece.cut(max(1, min(count, -(-int(piece.weight) // int(even)))))]
    shares: list[list[Piece]] = [[] for _ in range(count)]
    weights = [0.0] * count
    for piece in sorted(cut, key=lambda piece: (-piece.weight, piece.name, piece.share)):
        least = weights.index(min(weights))
        shares[least].append(piece)
        weights[least] += piece.weight
    return [sorted(share, key=lambda piece: (piece.name, piece.share)) for share in shares if share]

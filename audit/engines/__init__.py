"""Where the shards of a run are computed: in this process, in several, or on a cluster."""

from audit.engines.choosing import compute
from audit.engines.pieces import Piece, read_piece

__all__ = ["Piece", "compute", "read_piece"]

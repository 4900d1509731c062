"""Tables of runs too large to hold all rows: of sums that workers leave beside their parts."""

from audit.tables.scale.digest import digest_part, fits
from audit.tables.scale.gathering import Fetch, Gathered, Gathering
from audit.tables.scale.setting import Digesting
from audit.tables.scale.shown import KEPT_ROWS, PartRows, kept_table, read_kept, shown_rows
from audit.tables.scale.tables import assemble_summed, summed_totals

__all__ = [
    "KEPT_ROWS",
    "Digesting",
    "Fetch",
    "Gathered",
    "Gathering",
    "PartRows",
    "assemble_summed",
    "digest_part",
    "fits",
    "kept_table",
    "read_kept",
    "shown_rows",
    "summed_totals",
]

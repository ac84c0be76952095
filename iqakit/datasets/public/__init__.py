"""Public data sets: what is known of each, and a reader of the layout in which its authors hand it out.

Importing this loads neither torch nor numpy nor scipy: they come when a set is opened, if it needs them.
"""

from __future__ import annotations

from iqakit.contracts.entries import DatasetEntry
from iqakit.datasets.public import agiqa3k, csiq, konstanz, live, live_fb, photographs, pipal, piq23, tid
from iqakit.datasets.public.layout import PublicSet, entries, recognise

SETS: tuple[PublicSet, ...] = (
    live.LIVE,
    live.LIVE_MD,
    csiq.CSIQ,
    tid.TID2008,
    tid.TID2013,
    konstanz.KADID10K,
    pipal.PIPAL,
    photographs.BID,
    live.CLIVE,
    konstanz.KONIQ10K,
    photographs.SPAQ,
    live_fb.LIVE_FB,
    photographs.CID2013,
    photographs.BIQ2021,
    agiqa3k.AGIQA3K,
    piq23.PIQ23,
    konstanz.UHD_IQA,
)
"""All public sets, with their layout and split rule."""

PUBLIC_SETS: tuple[DatasetEntry, ...] = entries(SETS)
"""The same as records for the hook ``iqakit_datasets``."""

__all__ = ["PUBLIC_SETS", "SETS", "PublicSet", "recognise"]

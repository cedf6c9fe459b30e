"""Every metric of the station, and the pages that serve them."""

from inspector.metrics.pages import BUCKETS_S, OTHER, STAGES, Metrics, new_registry
from inspector.metrics.sources import LedgerCount, Sources

__all__ = ["BUCKETS_S", "OTHER", "STAGES", "LedgerCount", "Metrics", "Sources", "new_registry"]

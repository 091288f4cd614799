"""The library of the metrics, prometheus-client, which may be absent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isolcpus_dp.service import process

if TYPE_CHECKING:
    from isolcpus_dp.kubelet.metrics import Metrics


def load() -> type[Metrics] | None:
    """The class of the metrics; None if prometheus-client, which it needs, is not installed.

    To be called only if metrics are configured: prometheus-client imports ssl, which the command
    line blocks in a daemon.
    """
    process.UNNEEDED.unblock()
    try:
        # So that no worker has to load them.
        from isolcpus_dp.kubelet import exporter, root, running  # noqa: F401
        from isolcpus_dp.kubelet.metrics import Metrics
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        return None
    return Metrics

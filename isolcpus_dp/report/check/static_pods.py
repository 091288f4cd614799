"""Static pods that were admitted without the devices that they request.

If a static pod requests a resource that was never registered on the node, the kubelet admits it
without: on the first boot, or after its directory was removed. The pod then runs without CPUs of
its own, and the kubelet tells nobody.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isolcpus_dp.report.check import files, kubelet_settings, manifests
from isolcpus_dp.report.check.finding import Finding, ok, problem, some, unknown, warning

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host
    from isolcpus_dp.report.check.manifests import Request


@dataclass(frozen=True)
class _Lacking:
    """A container that holds fewer devices than it requests."""

    request: Request
    held: int

    def __str__(self) -> str:
        return f"{self.request} has {self.held} of {self.request.size} {self.request.resource}"


def devices(host: Host) -> Finding:
    """Whether the containers of static pods hold the devices that they request."""
    requests, unreadable = _requests(host)
    if requests and host.snapshot.unseen:
        raise files.Unseen("; ".join(host.snapshot.unseen))
    listed = [request for request in requests if str(request) in host.snapshot.containers]
    lacking = [one for one in _lacking(host, listed) if one.held < one.request.size]
    if lacking:
        return _lack(host, lacking)
    if unreadable:
        return unknown(some(unreadable), "Correct the manifest, or move it to another directory.")
    if not requests:
        return ok("no static pod requests isolated CPUs")
    absent = [request for request in requests if request not in listed]
    return ok(
        f"static pods that have the isolated CPUs that they request: {_pods(listed)}"
        + (f"; unknown to the kubelet, or init containers: {_pods(absent)}" if absent else "")
    )


def _requests(host: Host) -> tuple[list[Request], list[str]]:
    """What static pods request of our resources, and a sentence for each unusable manifest."""
    directory = kubelet_settings.static_pod_path(host)
    resources = [pool.resource_name for pool in host.snapshot.pools]
    requests, unreadable = list[manifests.Request](), list[str]()
    for manifest in manifests.paths(directory) if directory else []:
        try:
            requests += manifests.requests(manifest, kubelet_settings.node_name(host), resources)
        except files.Unseen as unseen:
            unreadable.append(str(unseen))
    return requests, unreadable


def _lacking(host: Host, requests: Iterable[Request]) -> list[_Lacking]:
    """The requests, each with the number of devices that its container holds."""
    held: dict[tuple[str, str], int] = {}
    for owner in host.snapshot.owners:
        key = str(owner.allocation), owner.allocation.resource
        held[key] = held.get(key, 0) + len(owner.allocation.ids)
    return [_Lacking(one, held.get((str(one), one.resource), 0)) for one in requests]


def _lack(host: Host, lacking: list[_Lacking]) -> Finding:
    """The finding about containers that lack devices."""
    advice = _advice([one.request for one in lacking])
    try:
        running = _running(host)
    except files.Unseen as unseen:
        return unknown(f"{some(lacking)}; whether they run is unknown: {unseen}", advice)
    run = [one for one in lacking if str(one.request) in running]
    if run:
        return problem(f"running without all their isolated CPUs: {some(run)}", advice)
    # The kubelet may list pods that have ended and released their devices.
    stay = [one for one in lacking if one.request.restarts]
    if stay:
        return warning(f"not running, and without isolated CPUs: {some(stay)}", advice)
    return ok(f"static pods that have ended: {_pods([one.request for one in lacking])}")


def _running(host: Host) -> set[str | None]:
    """namespace/pod/container of the containers that have processes. Raises Unseen."""
    if not files.names(host.roots.container_logs):
        raise files.Unseen(f"{host.roots.container_logs} lists no containers")
    pids = {thread.pid for thread in host.user_threads}
    return {container.name for pid in pids if (container := host.container(pid))}


def _pods(requests: Iterable[Request]) -> str:
    pods = dict.fromkeys(f"{request.namespace}/{request.pod}" for request in requests)
    return some(list(pods)) or "(none)"


def _advice(requests: Iterable[Request]) -> str:
    """How to create the pods again; the first one with its exact commands."""
    pods = list({(one.namespace, one.pod): one for one in requests}.values())
    first, others = pods[0], [str(one.manifest) for one in pods[1:]]
    path, name = shlex.quote(str(first.manifest)), shlex.quote(first.manifest.name)
    gone = f"kubectl get pod -n {first.namespace} {first.pod}"
    return (
        "Create the pod again when isolcpus-dp status shows enough free CPUs: run"
        f" mv {path} /root/, wait until {gone} does not find it, then run mv /root/{name} {path}."
        + (f" Do the same with {some(others)}." if others else "")
    )

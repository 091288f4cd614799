"""The order in which systemd starts the device plugin and the kubelet.

systemd/isolcpus-dp-generator sets it. This check reads what is in force.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from isolcpus_dp.report.check.finding import Finding, Verdict, ok, problem
from isolcpus_dp.service import units

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host

# Such a kubelet reports that it is ready shortly before it opens its socket.
_NOTIFY = ("notify", "notify-reload")


def unit_order(host: Host) -> Finding:
    """Whether the plugin is started before a kubelet whose unit is Type=notify. Raises Unseen."""
    plugin = host.roots.unit(units.PLUGIN)
    if not _exists(plugin):
        return ok(f"{units.PLUGIN} is not installed, or it is masked")
    kubelets = [unit for name in units.KUBELETS if _exists(unit := host.roots.unit(name))]
    if not kubelets:
        return ok(f"{units.PLUGIN} waits for no kubelet: no unit {' or '.join(units.KUBELETS)}")
    findings = [_order(plugin, kubelet) for kubelet in kubelets]
    wrong = [finding for finding in findings if finding.verdict is not Verdict.OK]
    return wrong[0] if wrong else ok("; ".join(finding.evidence for finding in findings))


def _order(plugin: Mapping[str, str], kubelet: Mapping[str, str]) -> Finding:
    # systemd shows the unit's own name, also where the dependency has an alias.
    name, kind = kubelet["Id"], kubelet["Type"]
    before, after = (name in plugin[key].split() for key in ("Before", "After"))
    if before and after:
        return problem(
            f"{units.PLUGIN} is ordered both before and after {name}: systemd may not start one of"
            " them at boot",
            f"Remove one of the two from the files that systemctl cat {units.PLUGIN} {name} shows"
            " in /etc/systemd, then run: systemctl daemon-reload",
        )
    if after and kind in _NOTIFY:
        return problem(
            f"{units.PLUGIN} is started after {name} (Type={kind}): it registers too late, and pods"
            " that own isolated CPUs fail permanently at each boot",
            f"Run: systemctl daemon-reload. If the order stays the same, remove After={name} from"
            f" the files that systemctl cat {units.PLUGIN} shows in /etc/systemd.",
        )
    order = "before" if before else "after" if after else "at the same time as"
    return ok(f"{units.PLUGIN} is started {order} {name} (Type={kind})")


def _exists(unit: Mapping[str, str]) -> bool:
    return unit.get("LoadState") == "loaded"

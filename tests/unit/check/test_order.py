"""The order of the device plugin's unit and the kubelet's."""

from __future__ import annotations

import pytest

from isolcpus_dp.report.check import files, order
from isolcpus_dp.report.check.finding import Finding, Verdict

from .conftest import MadeUpHost

PLUGIN, KUBELET, AGENT = "isolcpus-dp.service", "kubelet.service", "k3s-agent.service"
ABSENT = {"Id": "absent.service", "LoadState": "not-found", "Type": "", "Before": "", "After": ""}


def unit(name: str, kind: str, *, before: str = "", after: str = "") -> dict[str, str]:
    return {
        "Id": name,
        "LoadState": "loaded",
        "Type": kind,
        "Before": f"shutdown.target {before} multi-user.target",
        "After": f"basic.target {after} system.slice",
    }


def look(
    made_up: MadeUpHost,
    kind: str,
    *,
    before: str = "",
    after: str = "",
) -> Finding:
    """Checks a host with kubelet.service of this type, and the plugin in this order."""
    plugin = unit(PLUGIN, "notify", before=before, after=after)
    made_up.units = {PLUGIN: plugin, KUBELET: unit(KUBELET, kind), AGENT: ABSENT}
    return order.unit_order(made_up.host())


@pytest.mark.parametrize(
    ("kind", "before", "after", "evidence"),
    [
        (
            "simple",
            "",
            "kubelet.service k3s-agent.service",
            "isolcpus-dp.service is started after kubelet.service (Type=simple)",
        ),
        (
            "notify",
            "kubelet.service",
            "k3s-agent.service",
            "isolcpus-dp.service is started before kubelet.service (Type=notify)",
        ),
        (
            "exec",
            "kubelet.service",
            "",
            "isolcpus-dp.service is started before kubelet.service (Type=exec)",
        ),
        (
            "notify",
            "",
            "",
            "isolcpus-dp.service is started at the same time as kubelet.service (Type=notify)",
        ),
    ],
)
def test_order_in_which_the_plugin_is_in_time_is_ok(
    made_up: MadeUpHost, kind: str, before: str, after: str, evidence: str
) -> None:
    found = look(made_up, kind, before=before, after=after)
    assert (found.verdict, found.evidence) == (Verdict.OK, evidence)


@pytest.mark.parametrize("kind", ["notify", "notify-reload"])
def test_order_after_a_notify_kubelet_is_a_problem(made_up: MadeUpHost, kind: str) -> None:
    found = look(made_up, kind, after=KUBELET)
    assert (found.verdict, found.evidence) == (
        Verdict.PROBLEM,
        f"isolcpus-dp.service is started after kubelet.service (Type={kind}): it registers too"
        " late, and pods that own isolated CPUs fail permanently at each boot",
    )
    assert found.advice.startswith("Run: systemctl daemon-reload. ")
    assert "remove After=kubelet.service from the files" in found.advice


def test_cycle_of_both_units_is_a_problem(made_up: MadeUpHost) -> None:
    found = look(made_up, "simple", before=KUBELET, after=KUBELET)
    assert found.verdict is Verdict.PROBLEM
    assert "is ordered both before and after kubelet.service" in found.evidence


def test_kubelet_is_found_by_its_own_name(made_up: MadeUpHost) -> None:
    made_up.units = {
        PLUGIN: unit(PLUGIN, "notify", after="snap.kubelet.service"),
        KUBELET: unit("snap.kubelet.service", "notify"),
        AGENT: ABSENT,
    }
    found = order.unit_order(made_up.host())
    assert found.verdict is Verdict.PROBLEM
    assert "is started after snap.kubelet.service (Type=notify)" in found.evidence


def test_all_kubelet_units_are_checked(made_up: MadeUpHost) -> None:
    made_up.units = {
        PLUGIN: unit(PLUGIN, "notify", after=f"{KUBELET} {AGENT}"),
        KUBELET: unit(KUBELET, "simple"),
        AGENT: unit(AGENT, "exec"),
    }
    assert order.unit_order(made_up.host()).evidence == (
        "isolcpus-dp.service is started after kubelet.service (Type=simple);"
        " isolcpus-dp.service is started after k3s-agent.service (Type=exec)"
    )
    made_up.units[AGENT] = unit(AGENT, "notify")
    assert order.unit_order(made_up.host()).verdict is Verdict.PROBLEM


@pytest.mark.parametrize("state", ["not-found", "masked"])
def test_host_without_a_kubelet_unit_is_ok(made_up: MadeUpHost, state: str) -> None:
    made_up.units = {
        PLUGIN: unit(PLUGIN, "notify", after=f"{KUBELET} {AGENT}"),
        KUBELET: {**unit(KUBELET, "notify"), "LoadState": state},
        AGENT: ABSENT,
    }
    found = order.unit_order(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "isolcpus-dp.service waits for no kubelet: no unit kubelet.service or k3s-agent.service",
    )


def test_host_without_the_plugin_has_no_order(made_up: MadeUpHost) -> None:
    made_up.units = {PLUGIN: ABSENT}
    found = order.unit_order(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "isolcpus-dp.service is not installed, or it is masked",
    )


def test_order_is_unknown_without_systemd(made_up: MadeUpHost) -> None:
    with pytest.raises(files.Unseen):
        order.unit_order(made_up.host())

"""A container's annotations: a line with the runtime, the cpuset, and then `NAME: VALUE` lines."""

from __future__ import annotations

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.config import PinningConfig
from isolcpus_dp.host.cpulist import CpuListError
from isolcpus_dp.nri import pinning
from isolcpus_dp.nri.annotations import from_kubelet
from isolcpus_dp.nri.pinning import Decision, Owned, Rules
from tests.fuzz import sentences

_ALL = frozenset(range(8))
_ISOLATED = frozenset({2, 3, 6, 7})
_POOLS = {
    "windriver.com/isolcpus": Owned(frozenset({2, 6}), mixed=False),
    "example.com/mixed": Owned(frozenset({3, 7}), mixed=True),
}
_RULES = Rules(
    pools=_POOLS,
    isolated=_ISOLATED,
    housekeeping=_ALL - _ISOLATED,
    nameable=_ALL,
    online=_ALL - {7},
    nodes={cpu: cpu % 2 for cpu in _ALL},
    pinning=PinningConfig(memory_nodes="local"),
)


def check(data: bytes) -> bool:
    """The container gets CPUs of pools that its annotations name, or housekeeping CPUs."""
    runtime, _, rest = data.decode("utf-8", "replace").partition("\n")
    cpuset, _, lines = rest.partition("\n")
    given = dict(line.split(": ", 1) for line in lines.split("\n") if ": " in line)
    try:
        annotations = from_kubelet(runtime, api.Container(annotations=given))
    except ValueError:
        return False
    try:
        decision = pinning.decide(_RULES, annotations, cpuset)
    except CpuListError:
        return False  # the runtime's own list is wrong, not an annotation
    _check(decision, {name for name in _POOLS if name in annotations})
    if runtime.startswith("cri-o"):
        # What the author of a pod writes changes nothing.
        forged = api.Container(annotations={**given, **dict.fromkeys(_POOLS, "2-3,6-7")})
        assert pinning.decide(_RULES, from_kubelet(runtime, forged), cpuset) == decision
    return not decision.complaints


def _check(decision: Decision, named: set[str]) -> None:
    allowed = frozenset().union(*(_POOLS[name].cpus for name in named))
    assert decision.owned <= allowed & _RULES.online
    assert decision.unlimited == bool(decision.owned)
    if decision.cpus is not None:
        assert decision.cpus
        assert decision.cpus & _ISOLATED == decision.owned
    if decision.mems is not None:
        assert decision.mems == {_RULES.nodes[cpu] for cpu in decision.owned}
    assert not decision.refusal
    for complaint in decision.complaints:
        sentences.require(complaint)

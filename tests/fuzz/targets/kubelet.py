"""The kubelet's configuration in YAML; after `%%`, its CPU state, and then its memory state."""

from __future__ import annotations

from pathlib import Path

from isolcpus_dp.host.files import Unseen
from isolcpus_dp.kubelet import document
from isolcpus_dp.report.check.files import printable
from isolcpus_dp.report.check.start import change, table
from isolcpus_dp.report.check.start.facts import Facts
from isolcpus_dp.simulator.machine import described, parse_shape
from tests.fuzz import inputs, sentences

_MACHINE = described(parse_shape("2x2x2"), {2, 3, 6, 7})
_GIB = 2**30


def check(data: bytes) -> bool:
    """Any file is read or refused; the kubelet's start is judged; advice makes nothing worse."""
    text, cpu_state, memory_state = (
        part.decode("utf-8", "replace").strip() for part in inputs.parts(data, 3)
    )
    try:
        settings = document.parse(Path("/var/lib/kubelet/config.yaml"), text)
    except Unseen as unseen:
        sentences.require(unseen)
        return False
    known = Facts(
        settings=settings,
        machine=_MACHINE,
        nodes=frozenset({0, 1}),
        memory=8 * _GIB,
        node_memory={0: 4 * _GIB, 1: 4 * _GIB},
        huge_pages={0: {"hugepages-1Gi": 0}, 1: {"hugepages-1Gi": 0}},
        cpu_state=cpu_state or None,
        memory_state=memory_state or None,
    )
    refused = _refused(known)
    for advised in (change.reserve(known), change.align(known)):
        assert _refused(change.follow(known, advised)) <= refused
    sentences.require(printable(change.reserve_advice(known)))
    sentences.require(printable(change.align_advice(known)))
    return bool(settings) and not refused


def _refused(known: Facts) -> set[str]:
    """The rules that apply; each has evidence and advice, which may quote any text."""
    found = table.refusals(known)
    for refusal in found:
        sentences.require(printable(refusal.evidence))
        sentences.require(printable(refusal.advice))
    return {refusal.rule.refused for refusal in found}

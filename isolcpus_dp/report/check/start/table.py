"""The table of all refusals, and the check `kubelet-start`, which lists those of a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isolcpus_dp.report.check.finding import Finding, ok, problem
from isolcpus_dp.report.check.start import (
    cpu_policy,
    cpu_state,
    facts,
    memory,
    memory_state,
    reserved,
    topology,
)
from isolcpus_dp.report.check.start.rule import Refusal, Rule, Subject

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host

RULES: tuple[Rule, ...] = (
    *reserved.RULES,
    *cpu_policy.RULES,
    *cpu_state.RULES,
    *topology.RULES,
    *memory.RULES,
    *memory_state.RULES,
)


def start(host: Host) -> Finding:
    """Whether the kubelet starts with its settings and state files, and all reasons if not."""
    found = refusals(facts.read(host))
    if not found:
        return ok("the kubelet accepts its settings and its state files")
    return _finding(found)


def refused(known: facts.Facts, subject: Subject) -> Finding | None:
    """A problem with the refusals of one subject; None if there are none."""
    found = [refusal for refusal in refusals(known) if refusal.rule.subject == subject]
    return _finding(found) if found else None


def refusals(known: facts.Facts) -> list[Refusal]:
    """What the kubelet refuses; empty if it starts."""
    found = ((rule, rule.evidence(known)) for rule in RULES)
    return [Refusal(rule, evidence, rule.advice(known)) for rule, evidence in found if evidence]


def _finding(found: list[Refusal]) -> Finding:
    advice = list(dict.fromkeys(refusal.advice for refusal in found))
    reasons = "; ".join(refusal.evidence for refusal in found)
    return problem(f"{reasons}: the kubelet does not start", " ".join(advice))

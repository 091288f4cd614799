"""`Rule`: one reason for which the kubelet does not start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from isolcpus_dp.report.check.start import values

if TYPE_CHECKING:
    from isolcpus_dp.report.check.start.facts import Facts

# The check that also shows the refusal; "" for none.
Subject = Literal["reserved-cpus", "cpu-manager", "topology-manager", ""]


@dataclass(frozen=True)
class Rule:
    """What the kubelet refuses. The functions may raise no exception, whatever the settings are."""

    subject: Subject
    refused: str  # in general
    evidence: Callable[[Facts], str]  # on this host; empty if the kubelet accepts it
    advice: Callable[[Facts], str]


@dataclass(frozen=True)
class Refusal:
    """A rule that applies to a host."""

    rule: Rule
    evidence: str
    advice: str


def always(advice: str) -> Callable[[Facts], str]:
    """An advice that does not depend on the host."""
    return lambda _: advice


def not_text(*keys: str) -> Callable[[Facts], str]:
    """Evidence: values in a file that YAML reads as other types, but must be texts.

    A list is neither a text nor a mapping of texts.
    """

    def evidence(facts: Facts) -> str:
        wrong = []
        for key in keys:
            value = facts.settings.get(key)
            if isinstance(value, list):
                wrong.append(f"{key} is a list")
            named = {key: value}
            if isinstance(value, dict):
                named = {f"{name} in {key}": part for name, part in value.items()}
            wrong += [
                f"{name} is {str(part).lower()} without quotes"
                for name, part in named.items()
                if isinstance(part, (bool, int, float))
            ]
        return ", ".join(wrong)

    return evidence


QUOTE = always(
    "Write each text in double quotes in the kubelet's configuration, and options and amounts as a"
    ' mapping: {NAME: "VALUE"}.'
)


def not_pairs(key: str, flag: str, separator: str = "=") -> Callable[[Facts], str]:
    """Evidence: a word of a flag that is no pair."""

    def evidence(facts: Facts) -> str:
        words = values.flag_words(key, facts.settings.get(key))
        wrong = [word for word in words if separator not in word]
        return f"{flag} has '{wrong[0]}', which is not NAME{separator}VALUE" if wrong else ""

    return evidence


def locked(gate: str, since: str) -> Callable[[Facts], str]:
    """Evidence: a feature gate that is locked to true is set to false."""

    def evidence(facts: Facts) -> str:
        on = values.gate(facts.settings, gate, "", default=True)
        return "" if on else f"the feature gate {gate} is false (locked to true since {since})"

    return evidence


def bad_option(options: Mapping[str, str], known: Mapping[str, str], kind: str) -> str:
    """Evidence: the options that are not in `known`."""
    unknown = [name for name in options if name not in known]
    return f"the {kind} has no option {', '.join(unknown)}" if unknown else ""

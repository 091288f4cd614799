"""CPU lists and masks: of the kernel, of a configuration, and of a kernel argument."""

from __future__ import annotations

from collections.abc import Callable

from isolcpus_dp.host.cpulist import (
    MOST_CPUS,
    CpuListError,
    parse,
    parse_argument,
    parse_configured,
    parse_mask,
    render,
    render_argument,
    render_mask,
)

_LAST = 127


def check(data: bytes) -> bool:
    """Each parser accepts the text or names its invalid part; what is rendered can be parsed."""
    text = data.decode("utf-8", "replace")
    plain = _parsed(parse, text)
    configured = _parsed(lambda given: parse_configured(given, _LAST), text)
    argument = _parsed(lambda given: parse_argument(given, _LAST), text)
    mask = _parsed(parse_mask, text)
    for cpus in (plain, configured, argument, mask):
        if cpus is not None:
            _check_rendered(cpus)
    for cpus in (configured, argument):
        assert cpus is None or max(cpus, default=0) <= _LAST
    # The more general formats contain the one of the kernel.
    if plain is not None and max(plain, default=0) <= _LAST:
        assert configured == plain
        assert argument == plain
    return any(cpus is not None for cpus in (plain, configured, argument, mask))


def _parsed(parser: Callable[[str], frozenset[int]], text: str) -> frozenset[int] | None:
    """The CPUs; None if the text is invalid."""
    try:
        return parser(text)
    except CpuListError as error:
        part, message = error.part, str(error)
    assert part in text
    assert message.startswith(f"'{part}' ")
    return None


def _check_rendered(cpus: frozenset[int]) -> None:
    assert all(0 <= cpu < MOST_CPUS for cpu in cpus)
    assert parse(render(cpus)) == cpus
    assert parse_mask(render_mask(cpus)) == cpus
    assert parse_argument(render_argument(cpus), MOST_CPUS - 1) == cpus
    assert len(render_argument(cpus)) <= len(render(cpus))

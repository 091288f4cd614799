"""A measurement with a thread, a device and a tick, a quiet, a dropped and a watched CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isolcpus_dp.measure.activity import Loop
from isolcpus_dp.measure.result import Dropped, Histogram, Result
from tests.unit.measure.cause.results import (
    QUIET_HISTOGRAM,
    SERIAL,
    activity,
    interrupt,
    result,
)


@pytest.fixture
def mixed() -> Result:
    measured = result(
        {
            2: activity({"LOC": 9}, smis=0, frequency_mhz=(2995, 3000), loop=Loop(1, 0, 32, 0)),
            3: activity({"LOC": 2500}, {"TIMER": 2400}, {"burn/812": 1200}),
            4: activity({"4": 900}, noises=(interrupt("ttyS0", 900, 1800.0, 8.0),)),
            5: activity({"LOC": 2500}),
            7: replace(activity({}, {}, {"forwarder/5": 100}), loop=None),
        },
        {
            2: QUIET_HISTOGRAM,
            3: Histogram({1: 99_999, 1024: 30}, 4012.0, 10.0),
            4: Histogram({1: 9_999_999, 40: 30}, 41.0, 10.0),
            5: Histogram({1: 99_999_999, 9: 3000}, 12.0, 10.0),
        },
        devices=SERIAL,
        limit_us=20.0,
        watched=frozenset({7}),
        owners={7: "default/router/main"},
        unseen=("cannot read /dev/cpu/2/msr: run modprobe msr",),
    )
    return replace(measured, dropped=(Dropped(6, "it got the owner default/web/main"),))

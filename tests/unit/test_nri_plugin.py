"""The answers to a container runtime, without a connection."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.config import Config, PinningConfig
from isolcpus_dp.host import inotify, machine
from isolcpus_dp.nri import pinning
from isolcpus_dp.nri.messages import Update
from isolcpus_dp.nri.notes import Note, Replaced
from isolcpus_dp.nri.plugin import Plugin
from isolcpus_dp.nri.protocol import PLUGIN_SERVICE
from isolcpus_dp.nri.requested import Requested
from isolcpus_dp.nri.sandbox import Sandboxes
from isolcpus_dp.nri.ttrpc import CallError, Code
from isolcpus_dp.nri.unconfirmed import Unconfirmed
from isolcpus_dp.nri.watches import Watches

from .conftest import MakeUp
from .nri_runtime import POD, container

OTHER_POD = api.PodSandbox(id="other", name="b", uid="other-uid", namespace="default")

STOP_POD_SANDBOX, POST_START_CONTAINER, REMOVE_CONTAINER = 2, 7, 11


class Quotas:
    """Remembers which pods had their quota lifted."""

    def __init__(self) -> None:
        self.lifted: list[tuple[str, str]] = []

    def note(self, parent: str) -> Note:
        return Note()

    def note_containers(self, parent: str, pod: str, containers: dict[str, Replaced]) -> None:
        pass

    def lift(self, parent: str, pod: str, on_set: Callable[[], object]) -> None:
        self.lifted.append((parent, pod))

    def restore(self, parent: str, pod: str) -> None:
        pass


class Connection:
    """What a plugin needs, and a list of what it does."""

    def __init__(self, rules: pinning.Rules) -> None:
        self.rules = rules
        self.unconfirmed = Unconfirmed()
        self.requested = Requested()
        self.runtimes: list[str] = []
        self.updates: list[Update] = []
        self.quotas = Quotas()
        self.sandboxes = Sandboxes(Path("/nonexistent"), lambda: rules, Watches(inotify.Watch()))

    def synchronizing(self) -> None:
        pass

    def synchronized(self, runtime: str) -> None:
        self.runtimes.append(runtime)

    def update(self, update: Update) -> None:
        self.updates.append(update)


@pytest.fixture
def make_rules(make_up: MakeUp) -> Callable[..., pinning.Rules]:
    """Rules for CPUs 0-3, of which 2-3 are isolated."""
    present = machine.read(make_up("1x4x1", {2, 3}).root)

    def make(**settings: Any) -> pinning.Rules:
        config = Config(pinning=PinningConfig(**settings))
        return pinning.rules(present, config, present.online, frozenset())

    return make


@pytest.fixture
def connection(make_rules: Callable[..., pinning.Rules]) -> Connection:
    return Connection(make_rules())


@pytest.fixture
def plugin(connection: Connection) -> Plugin:
    plugin = Plugin(connection)
    configure(plugin, "r")
    return plugin


def ask(plugin: Plugin, method: str, request: Any, answer: Any = api.Empty) -> Any:
    return answer.FromString(plugin.answer(PLUGIN_SERVICE, method, request.SerializeToString()))


def configure(plugin: Plugin, runtime: str) -> int:
    request = api.ConfigureRequest(runtime_name=runtime, runtime_version="1")
    events: int = ask(plugin, "Configure", request, api.ConfigureResponse).events
    return events


def create(plugin: Plugin, container: api.Container, pod: api.PodSandbox = POD) -> str:
    """The cpuset of a new container; empty if the plugin does not change it."""
    request = api.CreateContainerRequest(pod=pod, container=container)
    answer = ask(plugin, "CreateContainer", request, api.CreateContainerResponse)
    return str(answer.adjust.linux.resources.cpu.cpus)


def synchronize(plugin: Plugin, *containers: api.Container, more: bool = False) -> dict[str, str]:
    """The cpusets that are updated, by container."""
    request = api.SynchronizeRequest(pods=[POD, OTHER_POD], containers=containers, more=more)
    answer = ask(plugin, "Synchronize", request, api.SynchronizeResponse)
    assert answer.more == more
    return {one.container_id: one.linux.resources.cpu.cpus for one in answer.update}


def report(plugin: Plugin, event: int, container: api.Container, pod: api.PodSandbox = POD) -> None:
    ask(plugin, "StateChange", api.StateChangeEvent(event=event, pod=pod, container=container))


def events_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record)["EVENT"] for record in caplog.records]


def test_subscription_is_to_the_events_that_are_answered(plugin: Plugin) -> None:
    subscribed = configure(plugin, "r")
    assert [event for event in range(1, 32) if subscribed >> event - 1 & 1] == [2, 4, 7, 8, 10, 11]


def test_unknown_method_is_unimplemented(plugin: Plugin) -> None:
    for service, method in ((PLUGIN_SERVICE, "Evict"), ("x", "Configure")):
        with pytest.raises(CallError) as error:
            plugin.answer(service, method, b"")
        assert error.value.code == Code.UNIMPLEMENTED


def test_unconfirmed_container_is_updated_at_once_and_again_with_a_result(
    plugin: Plugin, connection: Connection
) -> None:
    connection.unconfirmed.add("plain")
    request = api.SynchronizeRequest(pods=[POD], containers=[container("plain", "0-3")])
    [first] = ask(plugin, "Synchronize", request, api.SynchronizeResponse).update
    [second] = (update.message for update in connection.updates)
    assert [one.linux.resources.cpu.cpus for one in (first, second)] == ["0-1", "0-1"]
    # A failure in the answer would fail all of it.
    assert [one.ignore_failure for one in (first, second)] == [True, False]


def test_synchronize_in_parts_is_answered_at_the_end(
    plugin: Plugin, connection: Connection
) -> None:
    assert synchronize(plugin, container("plain"), more=True) == {}
    assert connection.runtimes == []
    ended = container("ended", state=api.CONTAINER_STOPPED)
    assert synchronize(plugin, container("owner", owns="3"), ended) == {
        "plain": "0-1",
        "owner": "3",
    }
    assert connection.runtimes == ["r 1"]


def test_started_container_is_updated(plugin: Plugin, connection: Connection) -> None:
    report(plugin, POST_START_CONTAINER, container("plain"))
    [update] = connection.updates
    assert (update.container, update.pod) == ("plain", "default/a")
    assert update.message.linux.resources.cpu.cpus == "0-1"


def test_pod_of_an_owner_has_its_quota_lifted(plugin: Plugin, connection: Connection) -> None:
    create(plugin, container("owner", owns="2"))
    create(plugin, container("plain"), OTHER_POD)
    assert connection.quotas.lifted == [("", "default/a")]


@pytest.mark.parametrize(
    ("received", "cpus"), [({"windriver.com/isolcpus": "2"}, "2"), ({}, "0-1"), (None, "0-1")]
)
def test_crio_container_owns_what_the_kubelet_gave(
    plugin: Plugin, received: dict[str, str] | None, cpus: str
) -> None:
    configure(plugin, "cri-o")
    made = container("owner", owns="3")
    if received is not None:
        made.annotations["io.kubernetes.cri-o.Annotations"] = json.dumps(received)
    assert create(plugin, made) == cpus


def test_internal_error_keeps_a_container_off_the_isolated_cpus(
    plugin: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    configure(plugin, "cri-o")
    made = container("owner")
    made.annotations["io.kubernetes.cri-o.Annotations"] = "{"
    assert create(plugin, made) == "0-1"
    assert events_of(caplog) == ["undecided"]


def test_kubelets_update_keeps_an_owner_on_its_cpus(plugin: Plugin) -> None:
    request = api.UpdateContainerRequest(
        pod=POD,
        container=container("owner", "2", owns="2"),
        linux_resources=api.LinuxResources(cpu=api.LinuxCPU(cpus="0-3")),
    )
    answer = ask(plugin, "UpdateContainer", request, api.UpdateContainerResponse)
    assert [one.linux.resources.cpu.cpus for one in answer.update] == ["2"]


def test_kubelets_update_without_cpuset_returns_withheld_cpus(
    plugin: Plugin, connection: Connection, make_rules: Callable[..., pinning.Rules]
) -> None:
    plain = container("plain", "1-3")
    plain.linux.resources.cpu.cpus = create(plugin, plain)
    assert plain.linux.resources.cpu.cpus == "1"
    connection.rules = make_rules(keep_others_off=False)
    request = api.UpdateContainerRequest(pod=POD, container=plain)
    answer = ask(plugin, "UpdateContainer", request, api.UpdateContainerResponse)
    assert [one.linux.resources.cpu.cpus for one in answer.update] == ["1-3"]


def test_cpus_are_not_returned_to_a_container_that_got_a_new_cpuset(
    plugin: Plugin, connection: Connection, make_rules: Callable[..., pinning.Rules]
) -> None:
    create(plugin, container("plain"))
    connection.rules = make_rules(keep_others_off=False)
    assert synchronize(plugin, container("plain", "1")) == {}


def test_created_container_carries_the_cpuset_that_it_asked_for(plugin: Plugin) -> None:
    notes = []
    for one in (container("plain"), container("wide", "1-3"), container("fitting", "1")):
        request = api.CreateContainerRequest(pod=POD, container=one)
        answer = ask(plugin, "CreateContainer", request, api.CreateContainerResponse)
        notes.append(dict(answer.adjust.annotations))
    note = "isolcpus-dp/requested-cpuset"
    assert notes == [{note: "all 0-1"}, {note: "1-3 1"}, {}]


def test_removed_container_is_forgotten(
    plugin: Plugin, connection: Connection, make_rules: Callable[..., pinning.Rules]
) -> None:
    create(plugin, container("plain"))
    report(plugin, REMOVE_CONTAINER, container("plain"))
    connection.rules = make_rules(keep_others_off=False)
    assert synchronize(plugin, container("plain", "0-1")) == {}


def running_owner(plugin: Plugin) -> None:
    synchronize(plugin, container("first", "2", owns="2"))


def second_owner(plugin: Plugin) -> str:
    second = container("second", owns="2-3")
    second.pod_sandbox_id = OTHER_POD.id
    return create(plugin, second, OTHER_POD)


def test_new_owner_of_an_owned_cpu_is_reported_and_not_moved(
    plugin: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    running_owner(plugin)
    assert second_owner(plugin) == "2-3"
    assert events_of(caplog) == ["owned_twice"]


def test_running_owners_of_one_cpu_are_reported_and_not_moved(
    plugin: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    second = container("second", "2-3", owns="2-3")
    second.pod_sandbox_id = OTHER_POD.id
    ended = container("ended", "3", api.CONTAINER_STOPPED, owns="3")
    assert synchronize(plugin, ended, container("first", "2", owns="2"), second) == {}
    assert events_of(caplog) == ["owned_twice"]
    assert "container first of pod default/a and container second of pod default/b" in caplog.text


def stops(plugin: Plugin) -> None:
    ask(plugin, "StopContainer", api.StopContainerRequest(pod=POD, container=container("first")))


def is_removed(plugin: Plugin) -> None:
    report(plugin, REMOVE_CONTAINER, container("first"))


def pod_stops(plugin: Plugin) -> None:
    report(plugin, STOP_POD_SANDBOX, api.Container())


@pytest.mark.parametrize("end", [stops, is_removed, pod_stops])
def test_cpu_of_an_ended_owner_is_given_to_the_next(
    plugin: Plugin, caplog: pytest.LogCaptureFixture, end: Callable[[Plugin], None]
) -> None:
    running_owner(plugin)
    end(plugin)
    assert second_owner(plugin) == "2-3"
    assert events_of(caplog) == []


def test_existing_others_stay_when_no_housekeeping_cpu_is_left(
    plugin: Plugin, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    connection.rules = replace(
        connection.rules, nameable=frozenset({2, 3}), housekeeping=frozenset()
    )
    assert synchronize(plugin, container("plain"), container("chosen", "0-1")) == {}
    with pytest.raises(CallError) as error:
        create(plugin, container("new"))
    assert error.value.code == Code.FAILED_PRECONDITION
    assert events_of(caplog) == ["container_refused"]

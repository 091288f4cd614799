"""Which annotations of a container are those that the kubelet gave."""

from __future__ import annotations

import pytest

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.nri.annotations import from_kubelet

CRIO = "cri-o 1.30.2"
RECEIVED = "io.kubernetes.cri-o.Annotations"


def given(received: str) -> api.Container:
    return api.Container(annotations={RECEIVED: received, "windriver.com/isolcpus": "2-3"})


def test_containerd_has_only_annotations_of_the_container() -> None:
    container = given("")
    assert from_kubelet("containerd v1.7.24", container) == container.annotations


@pytest.mark.parametrize(
    ("received", "annotations"),
    [
        ('{"windriver.com/isolcpus":"6"}', {"windriver.com/isolcpus": "6"}),
        ("{}", {}),
        ("null", {}),
    ],
)
def test_crio_has_those_that_it_recorded(received: str, annotations: dict[str, str]) -> None:
    assert from_kubelet(CRIO, given(received)) == annotations


def test_crio_without_a_record_has_none() -> None:
    forged = api.Container(annotations={"windriver.com/isolcpus": "2-3"})
    assert from_kubelet(CRIO, forged) == {}


@pytest.mark.parametrize(
    "received",
    [
        "",
        "{",
        "0.2",
        "[]",
        '"windriver.com/isolcpus"',
        '{"windriver.com/isolcpus":2}',
        "[" * 100_000,
    ],
)
def test_record_that_is_no_mapping_of_texts_is_refused(received: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (json has its own messages)
        from_kubelet(CRIO, given(received))

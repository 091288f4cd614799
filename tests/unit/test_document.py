"""Documents of the kubelet: their syntax and their limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolcpus_dp.host.files import Unseen
from isolcpus_dp.kubelet import document

FILE = Path("/etc/a.yaml")
LAUGHS = "\n".join(
    ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    + [
        f"{name}: &{name} [{', '.join(['*' + before] * 10)}]"
        for before, name in zip("abcdefgh", "bcdefghi")
    ]
)
MERGED = "\n".join(
    ["a: &a {k: 1}"]
    + [
        f"{name}: &{name} {{<<: [{', '.join(['*' + before] * 10)}]}}"
        for before, name in zip("abcdefgh", "bcdefghi")
    ]
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: [2, 3]\n---\nc: 4\n", {"a": 1, "b": [2, 3]}),
        ('{"a": {"b": "c"}}', {"a": {"b": "c"}}),
        ("a: &x {k: 1}\nb: {<<: *x, l: 2}", {"a": {"k": 1}, "b": {"k": 1, "l": 2}}),
        ("[1]", {}),
        ("", {}),
    ],
)
def test_first_document_is_parsed(text: str, expected: object) -> None:
    assert document.parse(FILE, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        MERGED,
        "a: &a [*a]",
        "[" * 100_000,
        "[" * 200 + "]" * 200,
        '{"a": ' * 200 + "1" + "}" * 200,
        "".join(f"{' ' * depth}a:\n" for depth in range(200)),
    ],
    ids=["laughs", "merged", "circle", "open", "json", "objects", "indented"],
)
def test_document_that_would_grow_or_nest_too_much_is_not_read(text: str) -> None:
    with pytest.raises(Unseen) as error:
        document.parse(FILE, text)
    assert str(error.value) == (
        "/etc/a.yaml is not read: it has more than 100000 values or 100 levels of nesting"
    )


def test_document_of_many_values_is_not_read() -> None:
    with pytest.raises(Unseen, match="more than 100000 values"):
        document.parse(FILE, f"a: [{'b,' * 100_000}]")


@pytest.mark.parametrize("number", ["9" * 101, f"0x{'f' * 4000}", f"1{':00' * 3000}"])
def test_number_that_cannot_be_printed_is_not_read(number: str) -> None:
    with pytest.raises(Unseen) as error:
        document.parse(FILE, f"a: {{b: [{number}]}}")
    assert (
        str(error.value) == "/etc/a.yaml is not valid YAML: a number has more than 100 characters"
    )


def test_drop_ins_are_read_in_the_kubelets_order(tmp_path: Path) -> None:
    for name in ("10-a.conf", "20-more/10-b.conf", "20-more/no.yaml", "30-c.conf", "README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "40-link").symlink_to(tmp_path / "20-more")
    assert document.drop_ins(tmp_path) == [
        tmp_path / "10-a.conf",
        tmp_path / "20-more/10-b.conf",
        tmp_path / "30-c.conf",
    ]


def test_too_many_drop_ins_are_not_read(tmp_path: Path) -> None:
    for directory in ("a", "b"):
        (tmp_path / directory).mkdir()
        for number in range(600):
            (tmp_path / directory / f"{number}.conf").touch()
    with pytest.raises(Unseen, match=f"^{tmp_path} is not read: it has more than 1000 files$"):
        document.drop_ins(tmp_path)

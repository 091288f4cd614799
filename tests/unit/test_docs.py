"""The pages, the sample configuration and the completion match the program."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from isolcpus_dp import arguments, config
from isolcpus_dp.arguments import Subcommand

ROOT = Path(__file__).parents[2]
COMPLETION = ROOT / "packaging/isolcpus-dp.bash"


def page(name: str) -> str:
    """A manual page's source with its escapes undone."""
    return (ROOT / "docs" / name).read_text().replace("\\-", "-")


every_subcommand = pytest.mark.parametrize(
    "subcommand", arguments.SUBCOMMANDS, ids=lambda s: s.name
)


def long_options(subcommand: Subcommand) -> set[str]:
    return {option.name for option in subcommand.options} | {"--help"}


def every_key() -> list[config.Key]:
    return [key for keys in config.KEYS.values() for key in keys.values()]


def needs(key: config.Key) -> list[str]:
    """Sentences about values of a key that need another key, which the pages must contain."""
    return [f"{key.name}={value} needs {needed}" for value, needed in key.needs.items()]


def section(name: str) -> str:
    """A section of isolcpus-dp(8)."""
    [text] = re.findall(rf"^\.SH {name}\n(.*?)(?=^\.SH )", page("isolcpus-dp.8"), re.M | re.S)
    return str(text)


def plain(source: str) -> str:
    """A page's source as one line of words, without fonts and brackets."""
    return " ".join(re.sub(r'^\.[A-Z]+|["\[\]|]', " ", source, flags=re.M).split())


@every_subcommand
def test_synopsis_has_the_options_of_the_subcommand(subcommand: Subcommand) -> None:
    [synopsis] = [
        block.partition("\n")[2]
        for block in section("SYNOPSIS").split("\n.PP\n")
        if block.startswith(f".B isolcpus-dp {subcommand.name}\n")
    ]
    taken = {(option.short or option.name, option.metavar or "") for option in subcommand.options}
    assert set(re.findall(r"(--?[a-z][a-z-]*)(?: ([A-Za-z]+))?", plain(synopsis))) == taken


@every_subcommand
def test_manual_describes_the_subcommand_and_its_options(subcommand: Subcommand) -> None:
    assert f".TP\n.B {subcommand.name}\n" in section("SUBCOMMANDS")
    for option in long_options(subcommand):
        assert re.search(
            rf'^\.B[IR]? (-\w ", " )?"?{option}\b', section("OPTIONS"), re.MULTILINE
        ), option


def test_manual_names_the_defaults_of_options() -> None:
    applying = {
        option.name: f"{option.default:g}"
        if isinstance(option.default, float)
        else str(option.default)
        for subcommand in arguments.SUBCOMMANDS
        for option in subcommand.options
        if isinstance(option.default, (float, Path))
    }
    described = [plain(entry) for entry in section("OPTIONS").split("\n.TP\n")[1:]]
    named = [
        (entry.split()[0], re.findall(r"Default: (\S+?)[.:]?(?: |$)", entry)) for entry in described
    ]
    assert {option: values[0] for option, values in named if values} == {
        **applying,
        "--config": str(config.DEFAULT_FILE),
        "--isolated": "all",  # except the first core of each package
        "--housekeeping": "1",  # unless --isolate is given
    }


def test_manual_says_of_each_check_what_the_table_says() -> None:
    table = (ROOT / "docs" / "check.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \| .*\*\*.* \|$", table, re.MULTILINE)
    assert len(rows) == 26
    for check, looks_at in rows:
        [entry] = re.findall(
            rf"^\.TP\n\.B {check}\n(.*?)(?=^\.TP|\Z)", section("CHECKS"), re.MULTILINE | re.DOTALL
        )
        text = re.sub(r", \[see below\]\(.*\)", "", looks_at).replace("`", "")
        assert plain(entry).casefold() == f"{text}.".casefold()


def test_manual_names_no_unknown_option() -> None:
    known = set().union(*map(long_options, arguments.SUBCOMMANDS))
    described = re.findall(
        r'^\.TP\n\.B[IR]? (?:-\w ", " )?"?(--[\w-]+)', page("isolcpus-dp.8"), re.M
    )
    assert set(described) == known | {"--version"}


def described() -> dict[str, str]:
    """By key: its entry in isolcpus-dp.conf(5)."""
    return dict(
        re.findall(
            r"^\.TP\n\.B (\w+)=\n(.*?)(?=^\.TP\n\.B \w+=\n|^\.SH )",
            page("isolcpus-dp.conf.5"),
            re.MULTILINE | re.DOTALL,
        )
    )


def rendered(source: str) -> str:
    """A page's source as one line of text: the macros of two fonts join their arguments."""
    words = []
    for line in source.splitlines():
        macro, *arguments = shlex.split(line) if line.startswith(".") else ("", line)
        words.append(("" if len(macro) == len(".BR") else " ").join(arguments))
    return " ".join(words)


def sample() -> dict[str, dict[str, tuple[str, str]]]:
    """By section and key of the sample configuration: the value, and the comment above it."""
    shown: dict[str, dict[str, tuple[str, str]]] = {}
    comment: list[str] = []
    for line in (ROOT / "packaging/isolcpus-dp.conf").read_text().splitlines():
        if section := re.fullmatch(r"#?\[(.+)\]", line):
            shown[section[1]] = {}
        elif key := re.fullmatch(r"#(\w+)=(.*)", line):
            list(shown.values())[-1][key[1]] = (key[2], " ".join(comment))
        comment = [*comment, line.lstrip("# ")] if line.startswith("# ") else []
    return shown


def test_manual_has_exactly_the_declared_keys() -> None:
    assert list(described()) == [key.name for key in every_key()]


@pytest.mark.parametrize("key", every_key(), ids=lambda key: key.name)
def test_manual_has_default_and_values_of_a_key(key: config.Key) -> None:
    text = rendered(described()[key.name])
    assert re.findall(r"Default: (\S+?)[.;](?: |$)", text) == [key.default or "none"]
    for statement in (f"Takes {key.value.allowed}.", *needs(key)):
        assert statement in text


@pytest.mark.parametrize("key", every_key(), ids=lambda key: key.name)
def test_manual_explains_every_value_of_a_key(key: config.Key) -> None:
    explained = re.findall(r"^\.TP\n\.B (\w+)$", described()[key.name], re.MULTILINE)
    # "Whether ..." explains yes and no.
    assert explained == ([] if key.value.choices == ("yes", "no") else list(key.value.choices))


def test_manual_names_the_keys_that_a_pool_must_set() -> None:
    required = " and ".join(f"{key.name}=" for key in every_key() if key.required)
    assert (
        f"section must set {required}, with a list in CPUs= or at least one of NUMANodes=,"
        " Packages=, CoreType=, Near= and Count=."
    ) in rendered(page("isolcpus-dp.conf.5"))


def test_sample_configuration_shows_every_key_with_its_default() -> None:
    shown = {
        section: {name: value for name, (value, _) in keys.items()}
        for section, keys in sample().items()
    }
    assert list(shown.pop("Pool dpdk")) == ["ResourceName", "CPUs"]
    assert shown == {
        section: {name: key.default for name, key in keys.items()}
        for section, keys in config.KEYS.items()
    }


@pytest.mark.parametrize(
    ("section", "name"),
    [(section, name) for section in config.KEYS for name in config.KEYS[section]],
)
def test_sample_configuration_names_the_values_of_a_key(section: str, name: str) -> None:
    key = config.KEYS[section][name]
    _, comment = sample()[section][name]
    assert re.findall(r"\((\w+(?:, \w+)* or \w+)\)", comment) == (
        [key.value.allowed] if key.value.choices else []
    )
    for statement in needs(key):
        assert statement in comment


def test_manual_shows_the_defaults() -> None:
    example = page("isolcpus-dp.conf.5").split("\nThe defaults:\n", 1)[1]
    example = example.split(".EX\n", 1)[1].split("\n.EE", 1)[0]
    expected = [
        line
        for section, keys in config.KEYS.items()
        for line in ("", f"[{section}]", *(f"{name}={key.default}" for name, key in keys.items()))
    ]
    assert example.splitlines() == expected[1:]


def rows() -> dict[str, tuple[str, str, str]]:
    """By key: default, values and meaning from its row in docs/operations.md."""
    cells = re.findall(
        r"^\| `(\w+)=` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$",
        (ROOT / "docs/operations.md").read_text(),
        re.MULTILINE,
    )
    return {name: (default, takes, meaning) for name, default, takes, meaning in cells}


def test_operations_page_has_exactly_the_declared_keys() -> None:
    assert list(rows()) == [key.name for key in every_key()]


@pytest.mark.parametrize("key", every_key(), ids=lambda key: key.name)
def test_operations_page_has_default_and_values_of_a_key(key: config.Key) -> None:
    default, takes, meaning = rows()[key.name]
    assert default == (f"`{key.default}`" if key.default else "none")
    if key.value.choices:
        assert takes.replace("`", "") == key.value.allowed
    for statement in needs(key):
        assert statement in meaning.replace("`", "")


def complete(*words: str) -> set[str]:
    """The completions that bash offers for the last word."""
    script = (
        f"source {COMPLETION}; COMP_WORDS=({' '.join(repr(word) for word in words)});"
        f" COMP_CWORD={len(words) - 1}; _isolcpus_dp; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return set(ended.stdout.split())


def test_completion_offers_files_after_an_option() -> None:
    assert complete("isolcpus-dp", "serve", "--config", "/et") == {"/etc"}
    # To bash, the = is a separate word.
    assert complete("isolcpus-dp", "serve", "--config", "=", "/et") == {"/etc"}
    assert "/etc" in complete("isolcpus-dp", "serve", "--sysfs", "=", "/e")


def test_completion_offers_the_subcommands() -> None:
    names = {subcommand.name for subcommand in arguments.SUBCOMMANDS}
    assert complete("isolcpus-dp", "") == names | {"--help", "--version"}
    assert complete("isolcpus-dp", "si") == {"simulate"}


@every_subcommand
def test_completion_offers_the_options_of_a_subcommand(subcommand: Subcommand) -> None:
    assert complete("isolcpus-dp", subcommand.name, "--") == long_options(subcommand)


@every_subcommand
def test_help_names_the_defaults_of_options(subcommand: Subcommand) -> None:
    for option in subcommand.options:
        if isinstance(option.default, (float, Path)):
            default = f"{option.default:g}" if isinstance(option.default, float) else option.default
            assert option.help.endswith(f"; default: {default}"), option.name

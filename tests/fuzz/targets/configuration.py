"""The configuration: a main file, and a drop-in after a line `%%`."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

from isolcpus_dp import config
from isolcpus_dp.config import Config, ConfigError, check_resource_name, files
from tests.fuzz import inputs, sentences

_LAST = 63


def check(data: bytes) -> bool:
    """The files are accepted, or one sentence names the file in which the mistake is."""
    main, drop_in = inputs.parts(data, 2)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "isolcpus-dp.conf"
        directory = Path(f"{file}.d")
        directory.mkdir()
        file.write_bytes(main)
        (directory / "10-site.conf").write_bytes(drop_in)
        try:
            settings = config.load(file, _LAST)
        except ConfigError as error:
            sentences.require(error, about=name)
            return False
        _check(settings)
        _check_written_again(file)
        assert config.load(file, _LAST) == settings
    return True


def _check(settings: Config) -> None:
    """What every accepted configuration fulfils."""
    assert settings.pools[0].section == "Plugin"
    for pool in settings.pools:
        check_resource_name(pool.resource_name)
        assert max(pool.cpus or {0}) <= _LAST
    for one, other in itertools.combinations(settings.pools, 2):
        assert not (one.cpus or frozenset()) & (other.cpus or frozenset())
        assert one.endpoint != other.endpoint
    for path in (settings.metrics, settings.kubelet.root, *settings.devices):
        assert "\0" not in str(path)
    assert len(config.fingerprint(settings)) == 8


def _check_written_again(file: Path) -> None:
    """The assignments of a file, written in the shortest way, are the same assignments."""
    sections = files.sections(file)
    lines = [
        line
        for section, values in sections.items()
        for line in (f"[{section}]", *(f"{key}={text}" for key, text in values.items()))
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    assert files.sections(file) == sections

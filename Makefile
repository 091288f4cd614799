# Each target installs what it needs, on a Debian 12 machine with git, make and python3. All output
# goes to build/. `make help` prints the lines that begin with ##.

PYTHON ?= python3
DEBIAN_PYTHON := /usr/bin/python3
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' isolcpus_dp/__init__.py)

VENV := build/venv
LINT := build/lint
SHIPPED := build/shipped
ARCHIVE := build/isolcpus-dp-$(VERSION).tar.gz
DEB := build/isolcpus-dp_$(shell sed -n '1s/.*(\(.*\)).*/\1/p' packaging/deb/changelog)_all.deb
RPM := build/rpm/isolcpus-dp-$(VERSION)-$(shell sed -n 's/^Release: *\([0-9]*\).*/\1/p' packaging/rpm/isolcpus-dp.spec).noarch.rpm
# The Debian packages that are needed to build the RPM packages and run the unit tests on them.
RPM_NEEDS := protobuf-compiler protobuf-compiler-grpc python3-grpcio python3-hypothesis python3-jsonschema python3-prometheus-client python3-protobuf python3-pytest python3-pytest-asyncio python3-pyudev python3-rich python3-sdnotify python3-setuptools python3-systemd python3-yaml rpm
SOURCES := setup.cfg setup.py pyproject.toml $(shell find isolcpus_dp -name '*.py' -not -name '*_pb2*') $(wildcard proto/*)
SCRIPTS := tools/deb tools/dist tools/extra tools/need tools/rpm tools/test-vm tools/verify-units .ci/run packaging/deb/isolcpus-dp.postrm packaging/deb/tests/service systemd/isolcpus-dp-generator

.DEFAULT_GOAL := help
.PHONY: help run test test-unit test-placement test-packages test-vm test-vm-full fuzz lint picture dist deb rpm sbom bench figure storm soak upgrade clean force

## print the targets
help:
	@awk '/^## / { text = substr($$0, 4) } \
		/^[a-z-]+:/ && text { sub(/:.*/, ""); printf "%-16s %s\n", $$0, text } \
		!/^##/ { text = "" }' Makefile

## run the daemon with an embedded kubelet and a simulated machine
run: $(VENV)/installed
	$(VENV)/bin/isolcpus-dp simulate --machine 2x8x2

## run the unit and integration tests
test: $(VENV)/installed
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile

## run only the unit tests
test-unit: $(VENV)/installed
	$(VENV)/bin/python -m pytest -q tests/unit

## compare 20,000 cases of placement with a search of every choice
test-placement: $(VENV)/installed
	PLACEMENT_CASES=20000 $(VENV)/bin/python -m pytest -q tests/unit/test_placement_proof.py

## build the packages, install them into directories and run them; as root
test-packages: $(VENV)/installed $(DEB) $(RPM) sbom
	tools/need autopkgtest busybox-static createrepo-c dnf mmdebstrap rpmlint
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile -o faulthandler_timeout=0 tests/packages

## boot virtual machines and install the packages in them; as root
test-vm: $(VENV)/installed $(DEB)
	tools/need e2fsprogs mmdebstrap qemu-system-x86 qemu-utils
	tools/test-vm $(VENV)/bin/python

## run test-vm with all releases and repetitions, for more than an hour; as root
test-vm-full: $(VENV)/installed $(DEB)
	tools/need e2fsprogs mmdebstrap qemu-system-x86 qemu-utils
	VM_TESTS=full tools/test-vm $(VENV)/bin/python

FUZZ_SECONDS := 600
FUZZ_SEED := 0
## search for input that is a fault: ten minutes for each target, two at a time
fuzz: $(VENV)/installed
	$(VENV)/bin/pip install -q --disable-pip-version-check atheris
	$(VENV)/bin/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

## check format, style, types, spelling, manual pages, shell scripts and units
lint: $(LINT)/installed
	tools/need man-db shellcheck systemd
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/codespell
	man --warnings -l docs/isolcpus-dp.8 docs/isolcpus-dp.conf.5 2>&1 >/dev/null | (! grep .)
	shellcheck --shell=bash packaging/isolcpus-dp.bash
	shellcheck $(SCRIPTS)
	tools/verify-units

## draw docs/map.svg, the picture in the README
picture: $(VENV)/installed
	$(VENV)/bin/python tools/picture docs/map.svg

## make the source archive
dist: $(ARCHIVE)

## build the Debian packages from the source archive
deb: $(DEB)

# Distributions build from the source package. The binary packages are for this host's version of
# Python and contain what its protoc generates.
## build the RPM packages from the source archive
rpm: $(RPM)

## write the bill of materials of the Debian packages (CycloneDX)
sbom: $(VENV)/installed $(DEB)
	$(VENV)/bin/pip install -q --disable-pip-version-check $$(tools/extra sbom)
	$(VENV)/bin/python tools/sbom build/isolcpus-dp-$(VERSION).cdx.json $(DEB) $(subst dp_,dp-pin_,$(DEB))

# With Debian's own python3 and grpcio, which the packages depend on. The programs also import
# tests.testbed and bench.figures, from the source tree, which comes after the package. Each appends
# its figures to the file FIGURES. At the end they are put into bench/results/, and the page and the
# picture are made from all results there.
MEASURE = cd $(SHIPPED) && FIGURES=$(CURDIR)/build/figures/$(KIND).jsonl PYTHONPATH=$(CURDIR)/$(SHIPPED):$(CURDIR) $(DEBIAN_PYTHON)
FINISH = $(MEASURE) -m bench.figures finish $(CURDIR)/bench/results $(CURDIR)/docs
BENCHES := service memory calls metrics placement pinning report check plan growth
## measure all figures of cost, in about a quarter of an hour, for docs/measurements.md; as root
bench: KIND = bench
bench: $(SHIPPED)/built
	$(MEASURE) -P -c 'import isolcpus_dp as p; assert p.__path__ == ["$(CURDIR)/$(SHIPPED)/isolcpus_dp"], p'
	$(MEASURE) -m bench.figures begin
	failed=; for program in $(BENCHES); do \
		($(MEASURE) $(CURDIR)/bench/$$program) || failed="$$failed $$program"; \
	done; \
	($(FINISH)) && if [ "$$failed" ]; then echo "failed, or above a limit:$$failed" >&2; exit 1; fi

RUN := service latency
## measure a part of bench/ and keep nothing, such as make figure RUN="service latency"; as root
figure: $(SHIPPED)/built
	cd $(SHIPPED) && PYTHONPATH=$(CURDIR)/$(SHIPPED):$(CURDIR) $(DEBIAN_PYTHON) $(CURDIR)/bench/$(RUN)

STORM_RESTARTS := 1000
## restart kubelet and container runtime a thousand times each, for docs/measurements.md; as root
storm: KIND = storm
storm: $(SHIPPED)/built
	$(MEASURE) -m bench.figures begin
	$(MEASURE) $(CURDIR)/bench/storm --restarts $(STORM_RESTARTS) $(if $(SEED),--seed $(SEED))
	$(FINISH)

SOAK_MINUTES := 60
SOAK := FIGURES=$(CURDIR)/build/figures/soak.jsonl $(VENV)/bin/python -m
## let pods, CPUs, kubelet and container runtime come and go in a virtual machine for an hour; as root
soak: $(VENV)/installed $(DEB)
	tools/need e2fsprogs gcc mmdebstrap protobuf-compiler protobuf-compiler-grpc qemu-system-x86 qemu-utils
	$(SOAK) tests.vm.soak --minutes $(SOAK_MINUTES) $(if $(SEED),--seed $(SEED))
	$(SOAK) bench.figures finish bench/results docs

UPGRADE := FIGURES=$(CURDIR)/build/figures/upgrade.jsonl $(VENV)/bin/python -m
## measure in virtual machines for how long an upgrade takes the devices away, for docs/measurements.md; as root
upgrade: $(VENV)/installed $(DEB)
	tools/need e2fsprogs gcc mmdebstrap protobuf-compiler protobuf-compiler-grpc qemu-system-x86 qemu-utils
	$(UPGRADE) bench.figures begin --guest "Debian 12 and 13, 8 emulated CPUs"
	VM_TESTS=full $(UPGRADE) pytest -q -o faulthandler_timeout=0 tests/vm/test_packages.py -k upgrade
	$(UPGRADE) bench.figures finish bench/results docs

## remove build/
clean:
	rm -rf build

# The package as an editable installation, with its dependencies and the tests' tools from PyPI.
$(VENV)/installed: $(SOURCES)
	tools/need gcc libsystemd-dev pkg-config
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || tools/need python3-venv
	test -e "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || tools/need python3-dev
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check --upgrade --editable .[test]
	touch $@

# The type stubs are written next to the generated modules, where mypy looks for them.
$(LINT)/installed: setup.cfg $(wildcard proto/*) $(VENV)/installed
	$(VENV)/bin/pip install -q --disable-pip-version-check grpcio-tools $$(tools/extra lint) $$(tools/extra sbom)
	PATH=$(CURDIR)/$(VENV)/bin:$$PATH python -m grpc_tools.protoc --proto_path=isolcpus_dp/api=proto \
		--mypy_out=quiet:. --mypy_grpc_out=quiet:. $(patsubst proto/%,isolcpus_dp/api/%,$(wildcard proto/*))
	mkdir -p $(LINT)
	touch $@

# The package as Debian's tools build and byte-compile it.
$(SHIPPED)/built: $(SOURCES)
	tools/need protobuf-compiler protobuf-compiler-grpc python3-grpcio python3-prometheus-client python3-protobuf python3-pyudev python3-rich python3-sdnotify python3-setuptools python3-systemd
	rm -rf $(SHIPPED)
	$(DEBIAN_PYTHON) setup.py -q build --build-lib $(SHIPPED)
	$(DEBIAN_PYTHON) -m compileall -q $(SHIPPED)
	touch $@

# tools/dist always runs, but replaces the archive only if a file has changed.
$(ARCHIVE): force
	tools/dist $@

# Without the tests: `make test` runs them, and so do builds for a distribution.
$(DEB): $(ARCHIVE)
	tools/need bash-completion build-essential debhelper dh-python dpkg-dev fakeroot protobuf-compiler protobuf-compiler-grpc pybuild-plugin-pyproject python3-setuptools
	DEB_BUILD_OPTIONS=nocheck DEB_BUILD_PROFILES=nocheck tools/deb $(ARCHIVE) build

$(RPM): $(ARCHIVE)
	tools/need $(RPM_NEEDS)
	tools/rpm $(ARCHIVE) build/rpm

# make run, make test: all of their set-up is done here, on a Debian 12 machine with git, make
# and python3. What is made goes to build/.

PYTHON ?= python3
DEBIAN_PYTHON := /usr/bin/python3
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' isolcpus_dp/__init__.py)

VENV := build/venv
LINT := build/lint
SHIPPED := build/shipped
ARCHIVE := build/isolcpus-dp-$(VERSION).tar.gz
DEB := build/isolcpus-dp_$(shell sed -n '1s/.*(\(.*\)).*/\1/p' packaging/deb/changelog)_all.deb
RPM := build/rpm/isolcpus-dp-$(VERSION)-$(shell sed -n 's/^Release: *\([0-9]*\).*/\1/p' packaging/rpm/isolcpus-dp.spec).noarch.rpm
# Of Debian's packages, what it takes to build packages for RPM, and to run the unit tests on them.
RPM_NEEDS := protobuf-compiler protobuf-compiler-grpc python3-grpcio python3-hypothesis python3-jsonschema python3-protobuf python3-pytest python3-pytest-asyncio python3-pyudev python3-rich python3-sdnotify python3-setuptools python3-systemd python3-yaml rpm
SOURCES := setup.cfg setup.py pyproject.toml $(shell find isolcpus_dp -name '*.py' -not -name '*_pb2*') $(wildcard proto/*)
SCRIPTS := tools/deb tools/dist tools/extra tools/need tools/rpm tools/test-vm tools/verify-units .ci/run packaging/deb/isolcpus-dp.postrm packaging/deb/tests/service

.PHONY: run test test-unit test-placement test-packages test-vm fuzz lint dist deb rpm sbom bench clean force

# The main job, on an embedded kubelet and a made-up machine.
run: $(VENV)/installed
	$(VENV)/bin/isolcpus-dp simulate --machine 2x8x2

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest -q

test-unit: $(VENV)/installed
	$(VENV)/bin/python -m pytest -q tests/unit

# All of the proof that placement keeps its rule, against a search of every choice.
test-placement: $(VENV)/installed
	PLACEMENT_CASES=20000 $(VENV)/bin/python -m pytest -q tests/unit/test_placement_proof.py

# Builds the packages, installs them in folders and runs what is installed; needs root.
test-packages: $(VENV)/installed $(DEB) $(RPM) sbom
	tools/need autopkgtest busybox-static createrepo-c dnf mmdebstrap rpmlint
	$(VENV)/bin/python -m pytest -q -o faulthandler_timeout=0 tests/packages

# Boots virtual machines and installs the package in them; needs root, for mmdebstrap.
test-vm: $(VENV)/installed $(DEB)
	tools/need e2fsprogs mmdebstrap qemu-system-x86
	tools/test-vm $(VENV)/bin/python

# Searches for bytes that the transport of NRI does not survive.
FUZZ_SECONDS := 60
fuzz: $(VENV)/installed
	$(VENV)/bin/pip install -q --disable-pip-version-check atheris
	mkdir -p build/fuzz/corpus
	cd build/fuzz && PYTHONPATH=../.. ../venv/bin/python ../../tests/fuzz/nri.py -max_total_time=$(FUZZ_SECONDS) corpus

lint: $(LINT)/installed
	tools/need man-db shellcheck systemd
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	man --warnings -l docs/isolcpus-dp.8 docs/isolcpus-dp.conf.5 2>&1 >/dev/null | (! grep .)
	shellcheck --shell=bash packaging/isolcpus-dp.bash
	shellcheck $(SCRIPTS)
	tools/verify-units

# The source archive, from which both packages are built.
dist: $(ARCHIVE)

deb: $(DEB)

# What a distribution builds is the source package: in the other one are this host's Python and
# what its protoc makes.
rpm: $(RPM)

# What apt installs with the packages, as CycloneDX.
sbom: $(VENV)/installed $(DEB)
	$(VENV)/bin/pip install -q --disable-pip-version-check $$(tools/extra sbom)
	$(VENV)/bin/python tools/sbom build/isolcpus-dp-$(VERSION).cdx.json $(DEB) $(subst dp_,dp-pin_,$(DEB))

# The numbers that README.md and docs/ name, with Debian's own python3 and grpcio: what ships.
bench: $(SHIPPED)/built
	cd $(SHIPPED) && PYTHONPATH=. $(DEBIAN_PYTHON) $(CURDIR)/bench/service
	cd $(SHIPPED) && PYTHONPATH=. $(DEBIAN_PYTHON) $(CURDIR)/bench/placement
	cd $(SHIPPED) && PYTHONPATH=. $(DEBIAN_PYTHON) $(CURDIR)/bench/pinning
	cd $(SHIPPED) && PYTHONPATH=. $(DEBIAN_PYTHON) $(CURDIR)/bench/report
	cd $(SHIPPED) && PYTHONPATH=. $(DEBIAN_PYTHON) $(CURDIR)/bench/check

clean:
	rm -rf build

# The package as pip installs it, with its dependencies from PyPI and the tests' tools beside it;
# editable: the code is run where it is written.
$(VENV)/installed: $(SOURCES)
	tools/need gcc libsystemd-dev pkg-config
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || tools/need python3-venv
	test -e "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || tools/need python3-dev
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check --upgrade --editable .[test]
	touch $@

# The types of what is generated from proto/ go beside it, where mypy looks for them.
$(LINT)/installed: setup.cfg $(wildcard proto/*) $(VENV)/installed
	$(VENV)/bin/pip install -q --disable-pip-version-check grpcio-tools $$(tools/extra lint) $$(tools/extra sbom)
	PATH=$(CURDIR)/$(VENV)/bin:$$PATH python -m grpc_tools.protoc --proto_path=isolcpus_dp/api=proto \
		--mypy_out=quiet:. --mypy_grpc_out=quiet:. $(patsubst proto/%,isolcpus_dp/api/%,$(wildcard proto/*))
	mkdir -p $(LINT)
	touch $@

# The package as Debian's tools build it, byte-compiled as its installation does.
$(SHIPPED)/built: $(SOURCES)
	tools/need protobuf-compiler protobuf-compiler-grpc python3-grpcio python3-protobuf python3-pyudev python3-rich python3-sdnotify python3-setuptools python3-systemd
	rm -rf $(SHIPPED)
	$(DEBIAN_PYTHON) setup.py -q build --build-lib $(SHIPPED)
	$(DEBIAN_PYTHON) -m compileall -q $(SHIPPED)
	touch $@

# Made anew each time, but only a new one if a file has changed.
$(ARCHIVE): force
	tools/dist $@

# Without its tests: make test runs them, and those who build for a distribution do.
$(DEB): $(ARCHIVE)
	tools/need bash-completion build-essential debhelper dh-python dpkg-dev fakeroot protobuf-compiler protobuf-compiler-grpc pybuild-plugin-pyproject python3-setuptools
	DEB_BUILD_OPTIONS=nocheck DEB_BUILD_PROFILES=nocheck tools/deb $(ARCHIVE) build

$(RPM): $(ARCHIVE)
	tools/need $(RPM_NEEDS)
	tools/rpm $(ARCHIVE) build/rpm

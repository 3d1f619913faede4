# Every target sets itself up; `make simulate` and `make test` are all a newcomer needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt
NATIVE := $(shell find edgetrain/native -type f) CMakeLists.txt pyproject.toml constraints.txt
CXX_FILES := $(shell find edgetrain/native -name '*.hpp' -o -name '*.cpp')

.DELETE_ON_ERROR:
.PHONY: setup simulate test deb arm-deb arm-test vm-test fuzz sanitize fault-test proto lint typecheck bench clean

setup: $(VENV)/.fleet

# The build tools go into the same environment, so that a rebuild need not fetch them again.
$(VENV)/.fleet: $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) scikit-build-core nanobind cmake ninja
	$(PIP) --no-build-isolation --editable '.[fleet]'
	touch $@

$(VENV)/.dev: $(VENV)/.fleet
	$(PIP) --no-build-isolation --editable '.[fleet,torch,dev]'
	touch $@

simulate: $(VENV)/.fleet
	$(BIN)/edgetrain simulate examples/watch.toml --report report.html

# A file's tests stay in one process: many share a server.
test: JOBS ?= 2
test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile

# A device's Debian package, for this machine's architecture and the Python of .venv; needs dpkg-dev.
DEB_WHEEL := $(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/deb \
	--config-settings=build-dir=build/deb/native

deb: $(VENV)/.fleet
	rm -rf build/deb && mkdir -p build/deb
	$(DEB_WHEEL) .
	deploy/debian/build.sh build/deb/*.whl build/deb

# The same for 64-bit ARM on x86-64. Needs g++-aarch64-linux-gnu and, for what the package depends
# on, the libraries of a Debian with both: dpkg --add-architecture arm64, libstdc++6:arm64.
arm-deb: export _PYTHON_HOST_PLATFORM := linux-aarch64
arm-deb: export SETUPTOOLS_EXT_SUFFIX = $(shell $(BIN)/python -c \
	"print(__import__('sysconfig').get_config_var('EXT_SUFFIX').replace('x86_64', 'aarch64'))")
arm-deb: DEB_WHEEL += --config-settings=cmake.define.CMAKE_SYSTEM_NAME=Linux \
	--config-settings=cmake.define.CMAKE_SYSTEM_PROCESSOR=aarch64 \
	--config-settings=cmake.define.CMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
arm-deb: deb

# Needs Debian's g++-aarch64-linux-gnu and qemu-user-static; without them `make test` skips it.
arm-test: $(VENV)/.dev
	command -v aarch64-linux-gnu-g++ && command -v qemu-aarch64-static
	$(BIN)/python -m pytest tests/kernels/test_arm.py

# systemd and cgroup v2 in an emulated machine; needs Debian's qemu-system-x86, and once debootstrap
# and root to build its base. `make vm-test SCENARIOS=enforcement` runs one file of tests/vm/guest.
vm-test: $(VENV)/.dev
	$(BIN)/python tests/vm/run.py $(SCENARIOS)

# Damaged payloads for as long as wanted; the seed that it prints draws the same ones again.
fuzz: EXAMPLES ?= 20000
fuzz: SEED := $(or $(SEED),$(shell date +%s))
fuzz: $(VENV)/.dev
	@echo make fuzz EXAMPLES=$(EXAMPLES) SEED=$(SEED)
	FUZZ_EXAMPLES=$(EXAMPLES) FUZZ_SEED=$(SEED) $(BIN)/python -m pytest -x tests/unit/test_fuzz.py

# The native tests with address and behaviour sanitizers, and many more damaged plans.
sanitize: $(VENV)/.dev
	DAMAGED_PLANS=$(or $(PLANS),20000) DAMAGED_SEED=$(or $(SEED),1) \
		$(BIN)/python -m pytest tests/kernels/test_hostile_plans.py

# Any process of a federation killed every few seconds; the seed that it prints draws the same ones.
fault-test: ROUNDS ?= 20
fault-test: SEED := $(or $(SEED),$(shell date +%s))
fault-test: $(VENV)/.dev
	@echo make fault-test ROUNDS=$(ROUNDS) SEED=$(SEED)
	FAULT_ROUNDS=$(ROUNDS) FAULT_SEED=$(SEED) \
		$(BIN)/python -m pytest -x -rP tests/federation/test_faults.py tests/federation/test_sleep.py

proto: $(VENV)/.dev
	mkdir -p build/proto
	$(BIN)/python -m grpc_tools.protoc -Iedgetrain/coordinator/control=coordinator/control \
		--python_out=build/proto edgetrain/coordinator/control/control.proto
	cp build/proto/edgetrain/coordinator/control/control_pb2.py coordinator/control/

lint: $(VENV)/.dev typecheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

# The type checker cannot follow the mapping of four folders to one package, but links it can.
typecheck: $(VENV)/.dev
	rm -rf build/typecheck && mkdir -p build/typecheck/edgetrain
	ln -s $(CURDIR)/edgetrain/* $(CURDIR)/client $(CURDIR)/coordinator $(CURDIR)/memory_profiler \
		build/typecheck/edgetrain/
	MYPYPATH=build/typecheck $(BIN)/mypy --strict -p edgetrain

bench: $(VENV)/.dev
	$(BIN)/edgetrain data fetch mnist fashion cifar10
	for network in mlp cnv binarynet har_cnn; do $(BIN)/edgetrain bench step $$network \
		--against torch --json benchmarks/results/step_$$network.json || exit 1; done
	for network in mlp cnv binarynet har_cnn; do $(BIN)/edgetrain bench roofline $$network \
		--json benchmarks/results/roofline_$$network.json || exit 1; done
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/latents.py
	$(BIN)/python benchmarks/expected_learning.py
	$(BIN)/python benchmarks/accuracy_convolutions.py
	$(BIN)/python benchmarks/shortcuts.py
	$(BIN)/python benchmarks/federated_watch.py
	$(BIN)/python benchmarks/asynchronous_rounds.py
	$(BIN)/python benchmarks/service_load.py
	$(BIN)/python benchmarks/held_load.py
	$(BIN)/python benchmarks/memory_prediction.py
	$(BIN)/python benchmarks/prediction.py
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/gradient_formats.py

clean:
	rm -rf $(VENV) build report.html

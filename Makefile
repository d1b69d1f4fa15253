# crypto-lob: `make` lists the targets. Everything is made under build/ and .venv/; `make clean` removes both.
#
#   PYTHON=python3.12   the interpreter of .venv (3.11 or newer); else the first one found
#   CXX=clang++         the compiler (C++20: g++ 12, clang 14 or newer); else g++, clang++, or zig's from PyPI
.DEFAULT_GOAL := help
.ONESHELL:
.DELETE_ON_ERROR:
.NOTPARALLEL:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
unexport PYTHONPATH

VENV := .venv
BIN := $(VENV)/bin
PACKAGES := shared/lob $(wildcard tools/*/lob_*)
NATIVE := $(wildcard shared/native/* tools/*/native/*) CMakeLists.txt pyproject.toml
RINGS := $(wildcard shared/native/*.hpp) $(wildcard tools/lob-publish/native/*.hpp)
EXPECT := tests/native/expect.hpp
# Two makes at once take turns.
LOCKED := mkdir -p build; $(if $(shell command -v flock),flock -o build/.lock)
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input

# The names that people type; the files behind them lie in build/.
.PHONY: $(shell awk -F: '/^[a-z0-9]+:/ { print $$1 }' Makefile)

help:
	@awk -F':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

# ---- build -----------------------------------------------------------------------------------------------------

build: ## .venv with all that is needed, and the native modules; nothing is done twice
	@$(LOCKED) $(MAKE) -s build/built

$(BIN)/python:
	@pick='import sys; sys.exit(sys.version_info < (3, 11))'
	for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do
	    if "$$python" -c "$$pick" 2>/dev/null; then
	        "$$python" -c 'import venv, ensurepip' 2>/dev/null || {
	            echo "make: $$python has no venv module; install it (Debian: apt-get install python3-venv)" >&2; exit 2; }
	        echo "make: $(VENV) with $$("$$python" --version)"
	        exec "$$python" -m venv $(VENV)
	    fi
	done
	echo "make: no Python 3.11 or newer; install it (Debian: apt-get install python3 python3-venv) or set PYTHON" >&2; exit 2

# One line: the compiler that is used. Asked for again only when CXX is given and is another one.
build/compiler: $(BIN)/python $(if $(filter environment% command%,$(origin CXX)),given-compiler)
	@printf '%s\n' '#include <atomic>' '#include <bit>' '#include <concepts>' '#include <span>' \
	    '#if !defined(__clang__) && __GNUC__ < 12' '#error too old' '#endif' \
	    '#if defined(__clang__) && __clang_major__ < 14' '#error too old' '#endif' \
	    'int main() { return std::popcount(0u); }' > build/compiles.cpp
	found=
	for cxx in $(if $(filter environment% command%,$(origin CXX)),'$(CXX)',g++ clang++); do
	    if $$cxx -std=c++20 build/compiles.cpp -o build/compiles 2>/dev/null; then found=$$cxx; break; fi
	done
	if [ -z "$$found" ]; then
	    $(if $(filter environment% command%,$(origin CXX)),echo "make: '$(CXX)' does not compile C++20; set CXX to g++ 12$(,) clang++ 14 or newer" >&2; exit 2)
	    echo 'make: no C++20 compiler (g++ 12, clang++ 14 or newer): taking ziglang from PyPI (about 90 MB)'
	    $(PIP) install 'ziglang>=0.13'
	    mkdir -p build/zig
	    for mode in cc c++; do
	        printf '#!/bin/sh\nexec "%s" -m ziglang %s "$$@"\n' "$$PWD/$(BIN)/python" $$mode > build/zig/$$mode
	        chmod +x build/zig/$$mode
	    done
	    found=$$PWD/build/zig/c++
	fi
	if [ -e $@ ] && [ "$$(cat $@)" = "$$found" ]; then exit 0; fi
	if [ -e $@ ]; then rm -rf build/release build/stress; fi
	echo "$$found" > $@
, := ,
.PHONY: given-compiler

define REQUIREMENTS
import tomllib
facts = tomllib.load(open("pyproject.toml", "rb"))
extras = facts["project"]["optional-dependencies"]
# cmake and ninja by name: without build isolation nobody else would ask for them.
print(*facts["build-system"]["requires"], *facts["project"]["dependencies"], *extras["test"], *extras["lint"],
      "cmake>=3.24", "ninja>=1.10", sep="\n")
endef
export REQUIREMENTS

# For what has no wheel: zig, if it is the compiler.
COMPILER = cxx=$$(cat build/compiler); export CXX="$$cxx"; case "$$cxx" in */zig/c++) export CC="$${cxx%c++}cc";; esac

$(VENV)/requirements.txt: pyproject.toml build/compiler
	@$(COMPILER)
	$(BIN)/python -c "$$REQUIREMENTS" > build/requirements.txt
	if ! cmp -s build/requirements.txt $@; then $(PIP) install -r build/requirements.txt; fi
	cp build/requirements.txt $@

build/built: $(VENV)/requirements.txt build/compiler $(NATIVE)
	@$(COMPILER)
	$(PIP) install --no-build-isolation --no-deps --editable . --config-settings=build-dir=build/release
	touch $@

run: build ## SECONDS=20 of the whole pipeline on a simulated venue, or VENUE=kraken SYMBOLS="BTC/USD ETH/USD"
	@exec $(BIN)/python demo/run --seconds $(or $(SECONDS),20) $(if $(VENUE),--venue $(VENUE)) $(SYMBOLS)

# ---- tests -----------------------------------------------------------------------------------------------------

REPORTS := build/reports
NATIVE_TESTS := $(patsubst tests/native/%.cpp,%,$(wildcard tests/native/*.cpp))
native unit e2e bench stress fuzz soak run: export PATH := $(CURDIR)/$(BIN):$(PATH)
PYTEST := $(BIN)/python -m pytest -q -o cache_dir=build/pytest

test: build ## the native, unit and e2e tests; the last line is `N passed, N failed`
	@rm -rf $(REPORTS)
	status=
	for part in native unit e2e; do
	    code=0; $(MAKE) $$part || code=$$?
	    status="$$status $$part=$$code"
	done
	exec $(BIN)/python .ci/count $(REPORTS) $$status

unit: build ## pytest: all that runs inside Python, also several processes
	@mkdir -p $(REPORTS)
	$(PYTEST) --junitxml=$(REPORTS)/unit.xml

e2e: build ## bats: the five commands, joined as a user joins them
	@mkdir -p $(REPORTS)
	code=0; timeout 900 $(BIN)/bats --report-formatter junit --output $(REPORTS) tests/e2e || code=$$?
	mv $(REPORTS)/report.xml $(REPORTS)/e2e.xml
	exit $$code

# The rings in C++ alone, at full speed, and processes that die in them: about 15 seconds.
native: build $(NATIVE_TESTS:%=build/native/%)
	@mkdir -p $(REPORTS)
	for test in $(NATIVE_TESTS); do build/native/$$test; done | tee $(REPORTS)/native.log | grep -v '^ok ' || true
	! grep -q '^FAILED' $(REPORTS)/native.log && [ "$$(grep -c passed $(REPORTS)/native.log)" = $(words $(NATIVE_TESTS)) ]

NATIVE_FLAGS = -std=c++20 -Wall -Wextra -Werror -pthread -Ishared/native
build/native/%: tests/native/%.cpp $(EXPECT) $(RINGS) build/compiler
	@mkdir -p $(@D); $$(cat build/compiler) $(NATIVE_FLAGS) -O3 $< -o $@
build/asan/%: tests/native/%.cpp $(EXPECT) $(RINGS) build/compiler
	@mkdir -p $(@D); $$(cat build/compiler) $(NATIVE_FLAGS) -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined $< -o $@
build/tsan/%: tests/native/%.cpp $(EXPECT) $(RINGS) build/compiler
	@mkdir -p $(@D); $$(cat build/compiler) $(NATIVE_FLAGS) -O1 -g -fno-omit-frame-pointer -fsanitize=thread $< -o $@

# A second set of modules with the sanitizer in it, in an environment of its own that borrows the packages of .venv.
ASAN_VENV := build/asan/venv
asan: build $(NATIVE_TESTS:%=build/asan/%) ## address and undefined-behaviour sanitizers: native tests, then pytest
	@export UBSAN_OPTIONS=halt_on_error=1
	for test in $(NATIVE_TESTS); do build/asan/$$test | tail -1; done
	cxx=$$(cat build/compiler)
	runtime=$$($$cxx -print-file-name=libasan.so)
	case $$runtime in /*) ;; *) echo "make: $$cxx has no libasan.so: the modules are not tested (set CXX=g++)" >&2; exit 2;; esac
	if [ ! -e $(ASAN_VENV)/bin/python ]; then
	    $(BIN)/python -m venv --without-pip $(ASAN_VENV)
	    find "$$PWD/$(VENV)/lib" -maxdepth 2 -name site-packages > "$$(echo $(ASAN_VENV)/lib/*/site-packages)/borrowed.pth"
	fi
	CXX=$$cxx $(PIP) --python $(ASAN_VENV)/bin/python install --no-build-isolation --no-deps --force-reinstall . \
	    --config-settings=build-dir=build/asan/cmake --config-settings=cmake.define.SANITIZE=address
	# libstdc++ too, so that the runtime finds what throws.
	rm -f build/asan/report.*
	PATH="$$PWD/$(ASAN_VENV)/bin:$$PATH" LD_PRELOAD="$$runtime $$($$cxx -print-file-name=libstdc++.so)" \
	    ASAN_OPTIONS=detect_leaks=0:log_path=$$PWD/build/asan/report \
	    $(ASAN_VENV)/bin/python -m pytest -q -o cache_dir=build/pytest -p no:cacheprovider -m 'not slow' \
	    $(wildcard tests/unit tests/fuzz) || { cat build/asan/report.* 2>/dev/null; exit 1; }

tsan: build $(NATIVE_TESTS:%=build/tsan/%) ## thread sanitizer: native tests
	@for test in $(NATIVE_TESTS); do TSAN_OPTIONS=halt_on_error=1 build/tsan/$$test; done

stress: build $(NATIVE_TESTS:%=build/native/%) ## SECONDS=60 of the rings under load, then killed processes (tests/processes)
	@build/native/ring_stress $(or $(SECONDS),60)
	LOB_STORM_KILLS=500 LOB_STORM_SECONDS=$(or $(SECONDS),60) exec $(PYTEST) tests/processes

# The rings' own source in Relacy, and two protocols in Spin; with one seeded mistake after the other, which must be found.
model: build/compiler ## the rings and their protocols under two model checkers (Relacy, Spin), and with seeded mistakes
	@missing=
	[ -e /usr/include/relacy/relacy.hpp ] || missing="$$missing relacy-dev"
	command -v spin >/dev/null || missing="$$missing spin"
	command -v cc >/dev/null || missing="$$missing gcc"
	[ -z "$$missing" ] || { echo "make: no$$missing; install it (Debian: apt-get install$$missing)" >&2; exit 2; }
	mkdir -p build/model
	$$(cat build/compiler) $(NATIVE_FLAGS) -O2 tests/model/ring_model.cpp -o build/model/ring_model
	build/model/ring_model $(or $(ITERATIONS),200000)
	for protocol in wake takeover; do tests/model/check_promela tests/model/$$protocol.pml build/model; done

fuzz: build ## SECONDS=60 of mutated messages, from a new seed each round (tests/fuzz)
	@end=$$((EPOCHSECONDS + $(or $(SECONDS),60)))
	for ((round = 1; EPOCHSECONDS < end; ++round)); do
	    seed=$$RANDOM; echo "round $$round: pytest tests/fuzz --hypothesis-seed=$$seed"
	    $(PYTEST) tests/fuzz --hypothesis-seed=$$seed
	done

BENCHES := $(addprefix build/bench/,ring_bench chain_bench trace_bench)
bench: build $(BENCHES) ## a table of times beside their yardsticks and goals; also in build/bench.json
	@exec $(BIN)/python tests/bench/run.py $(BENCHES)
build/bench/%: tests/bench/%.cpp $(RINGS) build/compiler
	@mkdir -p $(@D); $$(cat build/compiler) $(NATIVE_FLAGS) -O3 $< -o $@

soak: build ## MINUTES=10 of constant load: nothing may grow (memory, descriptors, latency, /dev/shm)
	@exec $(BIN)/python tests/bench/soak.py $(or $(MINUTES),10)

# ---- checks ----------------------------------------------------------------------------------------------------

lint: build ## ruff, mypy --strict, and systemd-analyze where it is installed
	@failed=0
	$(BIN)/ruff check --quiet --cache-dir build/ruff shared tools tests demo/run .ci/count || failed=1
	$(BIN)/mypy --strict --no-error-summary --cache-dir build/mypy $(PACKAGES) || failed=1
	if command -v systemd-analyze >/dev/null; then
	    rm -rf build/units; systemd/install $$PWD/$(BIN) $$PWD/build/units/etc $$PWD/build/units >/dev/null
	    SYSTEMD_UNIT_PATH=$$PWD/build/units: systemd-analyze verify build/units/*.* || failed=1
	fi
	exit $$failed

# ---- elsewhere -------------------------------------------------------------------------------------------------

PREFIX := /usr/local
ETC := $(if $(filter /usr/local,$(PREFIX)),/etc/crypto-lob,$(PREFIX)/etc/crypto-lob)
UNITS := $(PREFIX)/lib/systemd/system
install: build ## the five commands in PREFIX=/usr/local (an environment of their own in lib/crypto-lob) and systemd's units
	@$(COMPILER)
	home=$(PREFIX)/lib/crypto-lob
	[ -x $$home/bin/python ] || $(BIN)/python -m venv --without-pip $$home
	$(PIP) --python $$home/bin/python install --force-reinstall .
	mkdir -p $(PREFIX)/bin
	for command in connect parse book publish trace; do ln -sf $$home/bin/lob-$$command $(PREFIX)/bin/; done
	systemd/install $(PREFIX)/bin $(ETC) $(UNITS)

clean: ## remove build/, .venv and all caches
	@rm -rf build $(VENV) .ruff_cache .mypy_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# make report: measure and write results/report/index.html.   make test: lint, types, tests.   Each sets itself up.
# make asv: the same cases under several versions of JAX (asv.conf.json), its site, and results/versions/index.html.
PROFILE ?= quick
STUDY ?= all
TARGETS ?= cpu,nvidia-h100
# Which of asv's benchmarks to run under each version of JAX: all of the quick profile's would take hours.
BENCH ?= Backprop\.(track_temp|track_evaluations).*depth144-|Remat\.(track|time)|Networks\.track_temp.*depth48-batch(512|32)-steps1-segments0|Backprop\.(time_case|track_compile_time).'(vanilla|store_all|sqrt|binomial_10)', 'depth144-
export PROFILE STUDY TARGETS

# The newest Python that runs here, of those that the project supports.
ifndef PYTHON
PYTHON := $(firstword $(foreach v,3.14 3.13 3.12 3.11,$(shell python$(v) -c 'print("python$(v)")' 2>/dev/null)) python3)
endif
VENV ?= .venv
# Which tests, as pytest has them.
TESTS ?= tests

comma := ,
BIN := $(VENV)/bin
# Is it an environment of its own, with pip in it? Nothing is ever installed into another Python.
OWN := $(BIN)/python -c 'import os, sys, pip; sys.exit(os.path.realpath(sys.prefix) != os.path.realpath("$(VENV)"))'
unexport PIP_TARGET PIP_PREFIX PIP_USER PYTHONHOME
# The stamps of an environment that is gone, or was never one, say nothing.
_ := $(shell $(OWN) 2>/dev/null || rm -f $(VENV)/report $(VENV)/test $(VENV)/extra-*)
INSTALL := $(OWN) && $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: asked report test faults lint asv reference noise verdicts clean
.DELETE_ON_ERROR:

$(VENV)/report: pyproject.toml constraints.txt
	@$(OWN) 2>/dev/null || test -f $(VENV)/pyvenv.cfg || test -z "$$(ls -A $(VENV) 2>/dev/null | grep -vx bin)" \
		|| { echo "$(VENV) holds more than an environment: name another VENV" >&2; exit 1; }
	@$(OWN) 2>/dev/null || { echo "$(PYTHON) makes $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@$(OWN) || { echo "$(VENV) is no environment of its own: remove it, and try again" >&2; exit 1; }
	$(INSTALL) -e '.[report,peers,programs]'
	touch $@

# The compilers of devices that are not there, and CUDA, are large: each is installed when a target first asks for it.
# Where that fails its targets are reported as not measured, and the rest goes on.
EXTRAS := $(if $(findstring nvidia,$(TARGETS)),targets-gpu) $(if $(findstring tpu,$(TARGETS)),targets-tpu) \
	$(if $(filter gpu,$(subst $(comma), ,$(TARGETS))),cuda)

$(VENV)/extra-%: $(VENV)/report | asked
	@if $(INSTALL) -e '.[$*]'; then touch $@; else echo "$*: could not be installed; its targets will be not measured"; fi

$(VENV)/test: $(VENV)/report $(VENV)/extra-targets-gpu
	$(INSTALL) -e '.[dev]'
	touch $@

# What is asked for by a name that there is not is refused before anything large is installed.
asked: $(VENV)/report
	@$(BIN)/python -m benchmarks

# A case that fails costs only itself: what was measured is reported all the same. The last result, and the last report,
# stay until the new one is whole.
report: asked $(EXTRAS:%=$(VENV)/extra-%)
	$(BIN)/python -m benchmarks results/latest.json
	$(BIN)/python -m analysis results/latest.json -o results/report

lint: $(VENV)/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest $(TESTS) -n 2 --dist worksteal

# Faults that really happen, injected: how many of each kind are survived.
faults: $(VENV)/test
	$(BIN)/python -m pytest tests/faults -q -n 2 --dist worksteal

asv: $(VENV)/test
	$(BIN)/asv machine --yes
	$(BIN)/asv run -b "$(BENCH)" HEAD^!
	$(BIN)/asv publish
	$(BIN)/python -m analysis .asv/results -o results/versions

# The runs that README shows: PROFILE=full make report reference; of a study that is long, STUDY=advice beside it.
reference:
	$(BIN)/python -m analysis results/latest.json -o results/report
	mkdir -p results/reference/figures
	xz -9ec results/latest.json > results/running.json.xz
	test $(STUDY) != all || rm -f results/reference/*.json.xz
	mv results/running.json.xz results/reference/$(if $(filter all,$(STUDY)),latest,$(STUDY)).json.xz
	$(BIN)/python -m analysis results/reference/*.json.xz -o results/report
	$(BIN)/python -m analysis.false_rates results/reference/*.json.xz -o results/reference/false_rates.md || test $$? -eq 3
	cp results/report/verdicts.json results/report/summary.md results/reference
	cp $(addprefix results/report/figures/,$(FIGURES)) results/reference/figures
	$(CHROMIUM) --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1500,1130 \
		--screenshot=results/reference/report.png file://$(CURDIR)/results/report/index.html

# What README shows of them; the picture of the report needs a browser.
FIGURES = $(shell sed -n 's|.*(results/reference/figures/\([a-zA-Z0-9_.-]*\)).*|\1|p' README.md)
CHROMIUM ?= chromium

noise: $(VENV)/report
	$(BIN)/adcost measure benchmarks/studies --study $(STUDY) --processes 40 -o results/noise.json
	$(BIN)/python -m analysis.coverage results/noise.json

# How often each noisy rule is wrong under the noise of the last run; fails where that is in more than 5% of cases.
verdicts: $(VENV)/report
	$(BIN)/python -m analysis.false_rates results/latest.json -o results/report/false_rates.md

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest .asv build results/*.json results/journals results/report

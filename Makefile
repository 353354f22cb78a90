# make report: measure and write results/report/index.html.   make test: lint, types, tests.   Each sets itself up.
PYTHON ?= python3
PROFILE ?= quick
STUDY ?= all
TARGETS ?= cpu
# Which of asv's benchmarks to run: all cases of the quick profile take it an hour.
BENCH ?= depth(16|144)-
export PROFILE STUDY TARGETS

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: report test lint asv reference noise clean
.DELETE_ON_ERROR:

.venv/report: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) -e '.[peers]'
	touch $@

.venv/test: .venv/report
	$(INSTALL) -e '.[peers,dev]'
	touch $@

# A case that fails costs only itself (pytest's exit status 1): what was measured is reported all the same.
# The last result stays until the new one is whole.
report: .venv/report
	mkdir -p results
	rm -f results/running.json
	$(BIN)/python -m pytest benchmarks -q --benchmark-only --benchmark-json=results/running.json \
		--benchmark-columns=median,iqr,rounds || test $$? -eq 1
	mv results/running.json results/latest.json
	$(BIN)/python -m analysis results/latest.json -o results/report

lint: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest tests

asv: .venv/test
	$(BIN)/asv machine --yes
	$(BIN)/asv run -E existing --set-commit-hash HEAD -b "$(BENCH)"
	$(BIN)/asv publish

# The run that README shows: PROFILE=full make report reference
reference:
	rm -rf results/reference
	mkdir -p results/reference
	$(BIN)/python -m json.tool --compact results/latest.json results/reference/latest.json
	cp -r results/report/index.html results/report/verdicts.json results/report/summary.md \
		results/report/figures results/reference

noise: .venv/report
	$(BIN)/python -m benchmarks.noise

clean:
	rm -rf .venv .asv results/*.json results/journals results/report

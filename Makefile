# On a fresh machine: `make demo` or `make test`; each installs what it needs into VENV first.
PYTHON ?= python3
VENV ?= .venv
SENTENCE ?=
TEXT ?=
WHEEL ?=
CASES ?= 2000
export SENTENCE TEXT WHEEL

BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed

.PHONY: demo test test-faults test-fuzz lint install clean

demo: install  ## encoder, teacher, students, scores; SENTENCE="..." tags yours, TEXT=my.txt: a student of your text
	$(BIN)/python recipes/demo/run.py --sentence="$$SENTENCE" --text="$$TEXT" --wheel="$$WHEEL"

# A thread each: threads of tests that run side by side would wait for one another's cores.
test: lint  ## style, types, tests, wheel; as many tests at a time as there are cores, at most 4
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-faults: install  ## every file-system call of a run fails once, in every way: 1,528 cases
	$(BIN)/python tests/fault_runs.py

test-fuzz: install  ## damaged corpora, recipes, text and model folders; make test-fuzz CASES=20000 tries more of each
	XLNER_FUZZ_CASES=$(CASES) $(BIN)/python -m pytest -o faulthandler_timeout=600 tests/corpora/test_fuzz_corpora.py \
	    tests/models/test_fuzz_models.py tests/config/test_fuzz_recipes.py tests/test_fuzz_text.py

lint: install
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

install: $(INSTALLED)

# torch by itself first, so that the version asked for is the one that everything else finds.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install torch==2.13.0
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	touch $@

clean:  ## what the demo made; environments and other runs stay
	rm -rf runs/demo

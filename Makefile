# Two commands do everything: `make demo` and `make test`. Both make .venv when it is missing.
#   make demo [PORT=7860] [RECIPE=stories]
#             [CORPUS=file-or-folder [ENCODING=cp1251] [KEEP_TOKENS=1: although the text has changed]]
# Packages: docs/dependencies.md. `make lock [UPGRADE="name name" | UPGRADE=all]` renews the exact set.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 7860
CORPUS ?=
ENCODING ?=
RECIPE ?= stories
VERSION :=
VENV := .venv/bin
INSTALL := $(VENV)/python -m pip install --disable-pip-version-check
SHOWN := $(PYTHON) .ci/install.py $(INSTALL)
TORCH := $(shell grep '^torch==' requirements.txt)
ADD = $(VENV)/pip freeze --exclude-editable > .venv/installed.txt && $(INSTALL) --quiet -c .venv/installed.txt
NOT_INSTALLED := { echo "error: not everything was installed (pip says why, above). Without a network: make the same again later. Another reason: docs/dependencies.md, \"When the installation fails\"" >&2; exit 1; }
NOT_FITTING := { echo "error: what is in .venv does not fit together (above). rm -r .venv, then make the same again: it installs the exact set" >&2; exit 1; }
# Of a path that need not exist; the command realpath of macOS knows only those that do.
REALPATH := import os, sys; os.write(1, os.fsencode(os.path.realpath(sys.argv[1])) + b"\n")
# Each run has a bundle of its own: one that is there counts as trained, and its run as not needed any more.
NAME := $(RECIPE)$(if $(CORPUS),-$(shell basename "$(CORPUS)" .txt | tr -c 'A-Za-z0-9\n' '-')-$(shell $(PYTHON) -c '$(REALPATH)' "$(CORPUS)" | cksum | cut -d' ' -f1))
RUN ?= runs/$(NAME)
BUNDLE ?= $(if $(CORPUS)$(filter-out stories,$(RECIPE)),bundles/$(NAME),bundle)
KEEP := $(if $(KEEP_TOKENS),--keep-tokens)

.PHONY: demo test test-slow faults fuzz mutation coverage hf-suite interop compat checks format bench lock supply clean
.NOTPARALLEL:

# The page opens at once, on the model in the box until your own is trained; that happens beside it, and goes on where it
# stopped.
demo: .venv/ready
	@$(VENV)/python app.py --port $(PORT) --bundle "$(BUNDLE)" --train $(RECIPE) --run-dir "$(RUN)" $(if $(CORPUS),--corpus "$(CORPUS)") $(if $(ENCODING),--encoding "$(ENCODING)") $(KEEP)

test: .venv/ready-dev
	env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(VENV)/python -m pytest --cache-clear -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" || \
	{ [ $$? = 1 ] && env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(VENV)/python -m tests.again; }

test-slow: .venv/ready-dev
	$(VENV)/python -m pytest -m slow

# Kills, full disks, flipped bits, lost power: docs/reliability.md. KILLS=20 is a quarter of an hour.
KILLS ?= 200
faults: .venv/ready-dev
	OMP_NUM_THREADS=1 $(VENV)/python -m tests.faults --kills $(KILLS) --calls 60

hf-suite: .venv/ready-dev
	$(ADD) parameterized
	OMP_NUM_THREADS=1 $(VENV)/python -m tests.hf_suite

interop: .venv/ready-dev
	$(ADD) -r requirements-exports.txt
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest tests/hub_export/test_interop*.py

compat: .venv/ready-dev
	OMP_NUM_THREADS=1 $(VENV)/python -m tests.compat $(VERSION)

fuzz: .venv/ready-dev
	OMP_NUM_THREADS=1 $(VENV)/python -m tests.fuzz page
	$(ADD) -r requirements-fuzz.txt
	OMP_NUM_THREADS=1 $(VENV)/python -m tests.fuzz tokenizer

# Faults put into the code, and whether the tests notice: docs/reliability.md. What was tried is kept in .mutation/.
mutation: .venv/ready-dev
	OMP_NUM_THREADS=1 $(VENV)/python -m tests.mutation

# Lines and branches that the tests reach, commands and pages that they start included; half an hour, slower with others
# on the machine.
PACKAGES := storage corpus modeling tokenization train hub_export panels
coverage: .venv/ready-dev
	$(ADD) coverage
	@mkdir -p .coverage
	OMP_NUM_THREADS=1 $(VENV)/python -m coverage run -m pytest -m "not slow" $(addprefix tests/,$(PACKAGES)) tests/page
	$(VENV)/python -m coverage combine --quiet
	@for package in $(PACKAGES); do \
	    printf "%-13s %s %%\n" $$package $$($(VENV)/python -m coverage report --include="$$package/*" --format=total); \
	done
	@echo "what is missing: $(VENV)/python -m coverage report --show-missing --skip-covered"

checks: .venv/ready-dev
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/pyright

format: .venv/ready-dev
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

bench: .venv/ready-dev
	$(VENV)/python -m benchmarks --markdown docs/performance.md

clean:
	rm -rf .venv bundle bundles

lock:
	$(PYTHON) .ci/lock.py $(UPGRADE)

# Licences, known vulnerabilities, an SBOM: docs/dependencies.md. The last two need the network.
supply: .venv/ready-dev
	$(VENV)/python .ci/supply.py $(ONLY)

.venv/ready: pyproject.toml requirements.txt requirements-readers.txt requirements-sweep.txt requirements.lock requirements-torch.lock
	@$(PYTHON) -c 'import sys; sys.exit("expected Python 3.11 or newer, got " + sys.version.split()[0] + "; set PYTHON=") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	@echo "installing the exact set into .venv: $$(grep -c == requirements.lock) packages of requirements.lock, then $(TORCH)"
	@$(SHOWN) --no-deps --require-hashes -r requirements.lock || $(NOT_INSTALLED)
	@$(SHOWN) -c requirements-torch.lock $(TORCH) || $(NOT_INSTALLED)
	@$(INSTALL) --quiet --no-deps --no-build-isolation -e . || $(NOT_INSTALLED)
	@$(VENV)/python -m pip check || $(NOT_FITTING)
	@touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt requirements-trackers.txt requirements-dev.lock
	@echo "installing the exact set into .venv: $$(grep -c == requirements-dev.lock) packages of requirements-dev.lock"
	@$(SHOWN) --no-compile --no-deps --require-hashes -r requirements-dev.lock || $(NOT_INSTALLED)
	@$(VENV)/python -m pip check || $(NOT_FITTING)
	@touch $@

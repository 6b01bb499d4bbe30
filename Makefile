# Two commands do everything: `make demo` and `make test`. Both make .venv when it is missing.
#   make demo [PORT=7860] [CORPUS=file-or-folder] [RECIPE=stories]

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 7860
CORPUS ?=
RECIPE ?= stories
VENV := .venv/bin
NAME := $(RECIPE)$(if $(CORPUS),-$(shell basename "$(CORPUS)" .txt | tr -c 'A-Za-z0-9\n' '-')-$(shell realpath -m "$(CORPUS)" | cksum | cut -d' ' -f1))
RUN ?= runs/$(NAME)
BUNDLE ?= $(if $(CORPUS),bundles/$(NAME),bundle)

.PHONY: demo test test-slow hf-suite interop checks format bench clean
.NOTPARALLEL:

demo: .venv/ready
	@test -f "$(BUNDLE)/config.json" || $(VENV)/python -m train $(RECIPE) $(if $(CORPUS),--corpus "$(CORPUS)") --run-dir "$(RUN)" --resume
	@test -f "$(BUNDLE)/config.json" || grep -q '"status": "finished"' "$(RUN)/run.json" || { echo "training is not finished: make demo goes on from here"; exit 1; }
	@test -f "$(BUNDLE)/config.json" || $(VENV)/python -m hub_export bundle "$(RUN)" --out "$(BUNDLE)"
	@$(VENV)/python app.py --model "$(BUNDLE)" --port $(PORT)

test: .venv/ready-dev
	env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(VENV)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: .venv/ready-dev
	$(VENV)/python -m pytest -m slow

hf-suite: .venv/ready-dev
	$(VENV)/pip install --quiet --disable-pip-version-check parameterized
	OMP_NUM_THREADS=1 $(VENV)/python -m tests.hf_suite

interop: .venv/ready-dev
	$(VENV)/pip install --quiet --disable-pip-version-check gguf onnx onnxscript onnxruntime llama-cpp-python
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest tests/hub_export/test_interop*.py

checks: .venv/ready-dev
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/pyright

format: .venv/ready-dev
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

bench: .venv/ready-dev
	$(VENV)/python -m benchmarks

clean:
	rm -rf .venv bundle bundles

.venv/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("expected Python 3.11 or newer, got " + sys.version.split()[0] + "; set PYTHON=") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(VENV)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	$(VENV)/pip install --quiet --disable-pip-version-check --no-compile -r requirements-dev.txt
	@touch $@

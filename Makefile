# Needs Python >= 3.10 and a C++ compiler; the targets install the rest into $(VENV).
PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   ?= .venv
ARGS   ?=

PIP         := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
TORCH_STAMP := $(VENV)/.torch
BUILD_STAMP := $(VENV)/.ce_ext
INPUTS      := $(shell find csrc build_backend -type f -not -name '*.pyc') setup.py pyproject.toml
NVCC        := $(shell command -v nvcc)

.PHONY: help demo test bench lint check-cuda clean
help:  ## list the targets (the default)
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' Makefile | expand -t 12
	@echo "ARGS is passed on, as in: make test ARGS='-k focal'"

demo: $(BUILD_STAMP)  ## train a small net on handwritten digits with ce_ext and with torch
	@$(VENV)/bin/python examples/digits.py $(ARGS)

test: $(BUILD_STAMP)  ## run the tests
	@$(VENV)/bin/python -m pytest $(ARGS)

bench: $(BUILD_STAMP)  ## run the benchmarks
	@$(VENV)/bin/python -m benchmarks $(ARGS)

lint: $(BUILD_STAMP)  ## check the style of Python and C++
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy
	@$(VENV)/bin/clang-format --dry-run -Werror $(filter %.h %.cpp %.cu %.cuh,$(INPUTS))

ifeq ($(NVCC),)
check-cuda:
	@echo "$@: skipped, there is no nvcc"
else
check-cuda: $(BUILD_STAMP)  ## compile the CUDA kernels for three generations of GPUs and check their machine code
	@$(VENV)/bin/python -m tools.check_cuda $(ARGS)
endif

clean:  ## remove all that was built or installed here
	rm -rf $(VENV) build *.egg-info ce_ext/*.so ce_ext/_built_with.py digits.png

# Ask for another TORCH, and the stamp is outdated.
ifneq ($(TORCH),$(shell cat $(TORCH_STAMP) 2>/dev/null))
.PHONY: $(TORCH_STAMP)
endif
$(TORCH_STAMP):
	@echo "installing $(TORCH) into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install '$(TORCH)' 'setuptools>=77' ninja
	@echo '$(TORCH)' > $@

$(BUILD_STAMP): $(TORCH_STAMP) $(INPUTS)
	@echo "building ce_ext, which takes minutes the first time"
	@$(PIP) install --no-build-isolation -e '.[test,bench,examples,dev]'
	@touch $@

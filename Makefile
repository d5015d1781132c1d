# Needs Python >= 3.10 and a C++ compiler; the targets install the rest into $(VENV).
PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   ?= .venv
ARGS   ?=

PIP         := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
TORCH_STAMP := $(VENV)/.torch
BUILD_STAMP := $(VENV)/.ce_ext
INPUTS      := $(shell find csrc build_backend -type f -not -name '*.pyc') setup.py pyproject.toml

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

NVCC := $(shell command -v nvcc)
NVCC_FLAGS := -std=c++17 -O3 -Icsrc -Werror all-warnings -Xcompiler -Wall,-Werror \
	-Xptxas --warning-as-error,--warn-on-spills,--warn-on-local-memory-usage \
	$(foreach sm,80 90 100,-gencode arch=compute_$(sm),code=sm_$(sm))
check-cuda:  ## compile the CUDA kernels, if nvcc is there; a register spill is an error
ifeq ($(NVCC),)
	@echo "check-cuda: skipped, there is no nvcc"
else
	@for file in $(wildcard csrc/cuda/*.cu); do \
	    $(NVCC) $(NVCC_FLAGS) -c $$file -o /dev/null && echo "$$file: ok" || exit 1; \
	done
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

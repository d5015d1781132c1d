# Needs Python >= 3.10 and a C++ compiler; the targets install the rest into $(VENV).
PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   ?= .venv
ARGS   ?=
OUT    ?= build/gpu

# What check-cuda-build sets up next to that: a CUDA build of torch, which takes gigabytes.
CUDA_TORCH ?= torch==2.11.0
CUDA_VENV  ?= .venv-cuda

# What test-torch sets up for TORCH.
TORCH_VENV ?= .venv-torch

# How to install ce_ext. Without -e it is copied, and does not follow the changes of its Python files.
EDITABLE ?= -e
EXTRAS   ?= test,bench,examples,dev

# A worker for every core. Two threads in each still share kernels, and waiting for each other they leave the core alone.
THREADS     := OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
WORKERS     := -n logical --dist worksteal
PYTEST      := $(THREADS) $(VENV)/bin/python -m pytest $(WORKERS)
PIP         := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
TORCH_STAMP := $(VENV)/.torch
BUILD_STAMP := $(VENV)/.ce_ext
INPUTS      := $(shell find csrc build_backend -type f -not -name '*.pyc') setup.py pyproject.toml
ifeq ($(EDITABLE),)
INPUTS      += $(filter-out ce_ext/_built_with.py,$(wildcard ce_ext/*.py))
endif
NVCC        := $(shell command -v nvcc)

GPU_STAGES  := $(addprefix gpu-,build smoke bench test memcheck racecheck synccheck bench-others sweep)

.PHONY: help demo demo-imbalanced test test-all mutants test-torch bench bench-instructions gpu $(GPU_STAGES) lint check-cuda \
        check-cuda-build test-cuda-build test-modes clean
help:  ## list the targets (the default)
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' Makefile | expand -t 20
	@echo "$(GPU_STAGES) are the stages of gpu, which leaves out the last"
	@echo "ARGS is passed on, as in: make test ARGS='-k focal'"

demo: $(BUILD_STAMP)  ## train a small net on handwritten digits with ce_ext and with torch
	@$(VENV)/bin/python examples/digits.py $(ARGS)

demo-imbalanced: $(BUILD_STAMP)  ## find rare digits with BCE, weighted BCE and focal loss, of ce_ext and of torch
	@$(VENV)/bin/python examples/imbalanced.py $(ARGS)

test: $(BUILD_STAMP)  ## run the tests, those of CUDA kernels without a GPU, too: about five minutes on two cores
	@$(PYTEST) $(ARGS)

test-all: $(BUILD_STAMP)  ## run all tests, with all combinations of parameters, and under sanitizers
	@$(PYTEST) -m '' $(ARGS)

mutants: $(BUILD_STAMP)  ## plant bugs of a line everywhere, and count those that no test finds: hours, or ARGS='--sample 40'
	@$(VENV)/bin/python -m tests.mutation $(ARGS)

test-torch:  ## run the tests that depend on torch's version with another: make test-torch TORCH=torch==2.14.1
	@CE_EXT_CUDA=0 $(MAKE) --no-print-directory VENV=$(TORCH_VENV) EDITABLE= EXTRAS=test test-modes

bench: $(BUILD_STAMP)  ## run the benchmarks
	@$(VENV)/bin/python -m benchmarks $(ARGS)

bench-instructions: $(BUILD_STAMP)  ## count the instructions of the CPU kernels, and compare them with those recorded
	@$(VENV)/bin/python -m benchmarks.instructions $(ARGS)

gpu:  ## on a machine with a GPU, with its own torch: build, benchmark, test and sanitize; logs go to OUT
	@$(PYTHON) -m tools.gpu $(OUT) $(ARGS)

$(GPU_STAGES): gpu-%:
	@$(PYTHON) -m tools.gpu $(OUT) --stages $* $(ARGS)

lint: $(BUILD_STAMP)  ## check the style of Python and C++
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy
	@$(VENV)/bin/clang-format --dry-run -Werror $(shell find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu*')

ifeq ($(NVCC),)
check-cuda check-cuda-build:
	@echo "$@: skipped, there is no nvcc"
else
check-cuda: $(BUILD_STAMP)  ## compile the CUDA kernels for three generations of GPUs and check their machine code
	@$(VENV)/bin/python -m tools.check_cuda $(ARGS)

# For the default architectures even where there is a GPU, side by side, and without warnings, as check-cuda compiles.
check-cuda-build: $(BUILD_STAMP)  ## build ce_ext for a CUDA build of torch, import it, check its ops and machine code
	@CE_EXT_CUDA=1 CUDA_VISIBLE_DEVICES= NVCC_APPEND_FLAGS='--threads=0 -Werror=all-warnings -Xcompiler=-Wall,-Werror' \
	    $(MAKE) --no-print-directory VENV=$(CUDA_VENV) TORCH='$(CUDA_TORCH)' EDITABLE= EXTRAS=test test-cuda-build
	@$(VENV)/bin/python -m tools.check_cuda $(CUDA_VENV)/lib/python*/site-packages/ce_ext/_cuda.*.so
endif

# No command has the checkout on its path, hence they import what was installed. Files without such tests might not be
# importable there.
test-cuda-build test-modes: $(BUILD_STAMP)
	@cd $(VENV) && bin/python -m ce_ext.info
	@$(THREADS) $(VENV)/bin/pytest $(WORKERS) --import-mode=importlib -m 'torch_modes and not thorough' \
	    --device cpu --device none $(ARGS) $$(grep -rlw torch_modes tests --include='test_*.py')

clean:  ## remove all that was built or installed here
	rm -rf $(VENV) $(CUDA_VENV) $(TORCH_VENV) build *.egg-info ce_ext/*.so ce_ext/_built_with.py digits.png imbalanced.png

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
	@echo "building ce_ext, which takes a minute or two the first time"
	@$(PIP) install --no-build-isolation $(EDITABLE) '.[$(EXTRAS)]'
	@touch $@

# make demo, make test: each makes its own virtual environment and needs only Python >= 3.11.
# make check, make mutants, make gpu: what a change must pass beyond the tests.
SHELL := /bin/bash
PYTHON ?= python3
TORCH ?= torch==2.13.0
TRITON ?= triton==3.9.0
DEMO_ARGS ?= train mnist --estimators ste,fogzo,n-spsa --steps 4000 --seeds 3
PYTEST_ARGS ?=
SECONDS ?= 60
OUT ?= build/gpu

DEMO := .venv-demo
TEST := .venv-test
TOOLS := tests/tools
PIP := -m pip install --quiet --disable-pip-version-check
# Tests of the operations that have native code, and of the native module itself.
ASAN_TESTS := $(patsubst %,tests/test_%.py,noise fake_quantize whitened_norm perturb_quantize \
  assemble_gradient probe_matmul probe_matmul_native probe_matmul_flips quantize quantize_activation pack hadamard \
  hadamard_quantize compute_scale threads memory native)
# Tests of operations whose cuda rows run on the emulator of tests/cuda_on_host.
CUDA_TESTS := $(patsubst %,tests/test_%.py,noise fake_quantize whitened_norm perturb_quantize \
  assemble_gradient quantize quantize_activation pack hadamard hadamard_quantize)
# Tests of operations whose triton rows run in Triton's interpreter.
TRITON_TESTS := $(patsubst %,tests/test_%.py,noise fake_quantize whitened_norm perturb_quantize \
  assemble_gradient quantize pack)
DEMO_RUN := runs/demo-$(shell date -u +%Y%m%d-%H%M%S)

.PHONY: help demo test venv-test venv-triton check lint cpp-test asan fuzz static cuda-host-test triton-test triton-static package \
  c-library docs mutants gpu clean

help:
	@echo "make demo      train MNIST with three estimators in about two minutes"
	@echo "make test      run the tests (under 10 minutes)"
	@echo "make check     lint, sanitizers, fuzzing, static checks, packaging, docs"
	@echo "make triton-test   run the Triton kernels in Triton's interpreter, on the CPU"
	@echo "make cuda-host-test   run the CUDA kernels on the CPU, under the sanitizers"
	@echo "make triton-static compile both for three GPU generations and read the machine code"
	@echo "make c-library build, install and use the library for C and C++ programs"
	@echo "make mutants   plant faults and see the tests fail"
	@echo "make gpu       GPU tests and bench with this python's own tools, OUT=DIR"
	@echo "PYTHON=python3.12 and TORCH='torch==2.12.0' choose another interpreter and torch"

demo:
	@$(TOOLS)/preflight.sh $(PYTHON)
	@$(TOOLS)/venv.sh $(PYTHON) $(DEMO) "$(TORCH)" ".[train]"
	$(DEMO)/bin/fogzo $(DEMO_ARGS) --out $(DEMO_RUN)

test: venv-test
	$(TEST)/bin/pytest --durations=15 $(PYTEST_ARGS)

# Editable, so that the tests, the sanitizers and the tools see one source tree.
venv-test:
	@$(TOOLS)/preflight.sh $(PYTHON)
	@$(TOOLS)/venv.sh $(PYTHON) $(TEST) "$(TORCH)" -e ".[test,train]" pybind11 cmake ninja

check: venv-test
	@for part in lint static cpp-test asan fuzz cuda-host-test triton-test triton-static package c-library docs; do \
	  echo "== $$part"; $(MAKE) --no-print-directory $$part-only || exit 1; done
	@echo "== all checks passed"

lint cpp-test asan fuzz static cuda-host-test triton-test triton-static package c-library docs: %: venv-test
	@$(MAKE) --no-print-directory $*-only

.PHONY: lint-only cpp-test-only asan-only fuzz-only static-only cuda-host-test-only triton-test-only triton-static-only package-only c-library-only docs-only
lint-only:
	$(TEST)/bin/ruff check .
	$(TEST)/bin/mypy fogzo_kernels python/fogzo python/fogzo_command bench tests/tools setup.py
	$(TEST)/bin/clang-format --dry-run --Werror $$(git ls-files '*.h' '*.c' '*.cpp' '*.cu' '*.cuh')

cpp-test-only:
	@$(TOOLS)/native_build.sh $(TEST)/bin/python build/cpp
	build/cpp/fogzo_tests

asan-only:
	@$(TOOLS)/native_build.sh $(TEST)/bin/python build/asan address,undefined
	build/asan/fogzo_tests
	$(TOOLS)/with_asan.sh $(TEST)/bin/python -m pytest -q -x -m "not gpu and not slow" $(ASAN_TESTS)

fuzz-only:
	@$(TOOLS)/native_build.sh $(TEST)/bin/python build/asan address,undefined
	@for what in fuzz_native fuzz_ops; do $(TOOLS)/with_asan.sh $(TEST)/bin/python \
	  $(TOOLS)/$$what.py --seconds $$(($(SECONDS) / 2)) || exit 1; done

static-only:
	@$(TOOLS)/native_build.sh $(TEST)/bin/python build/cpp
	$(TEST)/bin/python $(TOOLS)/static_check.py build/cpp

# Kernels in Triton's interpreter, on the CPU; it prints how many of them were run.
triton-test-only: venv-triton
	TRITON_INTERPRET=1 FOGZO_EVERY_KERNEL=1 OMP_NUM_THREADS=1 $(TEST)/bin/pytest -q -k "triton and not numpy" \
	  --import-mode=importlib -o pythonpath=tests tests/triton_kernels $(TRITON_TESTS)

# The unmodified kernels of csrc/cuda as C++, by the emulator; it prints how many of them were run.
cuda-host-test-only:
	@$(TOOLS)/cuda_host_build.sh $(TEST)/bin/python build/cuda_host address,undefined
	@for test in build/cuda_host/*_test; do $$test 2>/dev/null || exit 1; done
	FOGZO_EVERY_KERNEL=1 $(TOOLS)/with_cuda_on_host.sh $(TEST)/bin/python -m pytest -q \
	  -k "cuda and not numpy and not named_gpu" --import-mode=importlib -o pythonpath=tests tests/cuda_kernels $(CUDA_TESTS)

# Every Triton row of the launch table and every CUDA kernel for sm_80, sm_90 and sm_100; no GPU. All of
# it is in the file.
triton-static-only: venv-triton
	@mkdir -p build
	$(TEST)/bin/fogzo bench --static > build/triton-static.txt || \
	  { grep -e "^sm_" -e FAIL build/triton-static.txt | grep -B1 FAIL; exit 1; }
	$(TEST)/bin/pytest -q tests/test_bench_static.py tests/test_bench_static_cuda.py

venv-triton: venv-test
	@$(TEST)/bin/python $(PIP) "$(TRITON)"

package-only:
	$(TEST)/bin/python $(TOOLS)/package_check.py

# The C library as its users build it, and both examples against the installed tree.
c-library-only:
	$(TEST)/bin/python $(TOOLS)/c_library.py

docs-only:
	$(TEST)/bin/pytest -q tests/test_docs.py

mutants: venv-triton
	$(TEST)/bin/python $(TOOLS)/mutants.py $(MUTANTS)

gpu:
	$(TOOLS)/gpu.sh $(PYTHON) $(OUT)

clean:
	rm -rf build dist *.egg-info .venv-demo .venv-test fogzo_kernels/*.so

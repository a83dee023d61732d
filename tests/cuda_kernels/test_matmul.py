"""The tests of the CUDA probe_matmul, which a GPU runs too, on the emulator."""

from test_probe_matmul_cuda import *  # noqa: F403

// probe_matmul of fogzo_kernels._cuda.
#include <pybind11/pybind11.h>

#include "fogzo/cuda.h"

namespace py = pybind11;

namespace {

template <class T> T* at(uint64_t address) { return reinterpret_cast<T*>(address); }

int64_t workspace(uint64_t x, uint64_t codes, int64_t x_sides, int64_t code_sides, int64_t rows, int64_t out_cols,
                  int64_t cols, int64_t scale_cols, int grid, int bits, int stored_bits, int x_type) {
    return fogzo_cuda_probe_matmul_workspace(at<void>(x), at<uint8_t>(codes), x_sides, code_sides, rows, out_cols, cols,
                                             scale_cols, grid, bits, stored_bits, x_type);
}

int probe_matmul(uint64_t x, uint64_t x_scale, uint64_t codes, uint64_t scale, uint64_t bias, uint64_t y,
                 uint64_t memory, int64_t memory_bytes, int64_t x_sides, int64_t code_sides, int64_t rows,
                 int64_t out_cols, int64_t cols, int64_t scale_rows, int64_t scale_cols, int grid, int bits,
                 int stored_bits, int x_type, uint64_t stream) {
    return fogzo_cuda_probe_matmul(at<void>(x), at<float>(x_scale), at<uint8_t>(codes), at<float>(scale),
                                   at<float>(bias), at<void>(y), at<void>(memory), memory_bytes, x_sides, code_sides,
                                   rows, out_cols, cols, scale_rows, scale_cols, grid, bits, stored_bits, x_type,
                                   at<void>(stream));
}

int64_t flips_workspace(uint64_t x, uint64_t base, int64_t x_sides, int64_t rows, int64_t out_cols, int64_t cols,
                        int64_t scale_cols, int grid, int bits, int x_type) {
    return fogzo_cuda_probe_matmul_flips_workspace(at<void>(x), at<uint8_t>(base), x_sides, rows, out_cols, cols,
                                                   scale_cols, grid, bits, x_type);
}

int probe_matmul_flips(uint64_t x, uint64_t x_scale, uint64_t base, uint64_t index, uint64_t code, uint64_t count,
                       int64_t capacity, uint64_t scale, uint64_t bias, uint64_t y, uint64_t memory,
                       int64_t memory_bytes, int64_t x_sides, int64_t sides, int64_t rows, int64_t out_cols,
                       int64_t cols, int64_t scale_rows, int64_t scale_cols, int grid, int bits, int x_type,
                       uint64_t stream) {
    return fogzo_cuda_probe_matmul_flips(
        at<void>(x), at<float>(x_scale), at<uint8_t>(base), at<int64_t>(index), at<uint8_t>(code), at<int64_t>(count),
        capacity, at<float>(scale), at<float>(bias), at<void>(y), at<void>(memory), memory_bytes, x_sides, sides, rows,
        out_cols, cols, scale_rows, scale_cols, grid, bits, x_type, at<void>(stream));
}

}  // namespace

void bind_probe_matmul(py::module_& m) {
    const auto unlocked = py::call_guard<py::gil_scoped_release>();
    m.def("probe_matmul", probe_matmul, unlocked);
    m.def("probe_matmul_workspace", workspace, unlocked);
    m.def("probe_matmul_flips", probe_matmul_flips, unlocked);
    m.def("probe_matmul_flips_workspace", flips_workspace, unlocked);
}

// probe_matmul of fogzo_kernels._cuda.
#include "bind.h"
#include "fogzo/cuda.h"

namespace {

int64_t workspace(Address x, Address codes, int64_t x_sides, int64_t code_sides, int64_t rows, int64_t out_cols,
                  int64_t cols, int64_t scale_cols, int grid, int bits, int stored_bits, int x_type, int kernel) {
    return fogzo_cuda_probe_matmul_workspace(in<void>(x), in<uint8_t>(codes), x_sides, code_sides, rows, out_cols, cols,
                                             scale_cols, grid, bits, stored_bits, x_type, kernel);
}

int probe_matmul(Address x, Address x_scale, Address codes, Address scale, Address bias, Address y, Address memory,
                 int64_t memory_bytes, int64_t x_sides, int64_t code_sides, int64_t rows, int64_t out_cols,
                 int64_t cols, int64_t scale_rows, int64_t scale_cols, int grid, int bits, int stored_bits, int x_type,
                 int kernel, Address stream) {
    return fogzo_cuda_probe_matmul(in<void>(x), in<float>(x_scale), in<uint8_t>(codes), in<float>(scale),
                                   in<float>(bias), out<void>(y), out<void>(memory), memory_bytes, x_sides, code_sides,
                                   rows, out_cols, cols, scale_rows, scale_cols, grid, bits, stored_bits, x_type,
                                   kernel, out<void>(stream));
}

int64_t flips_workspace(Address x, Address base, int64_t x_sides, int64_t rows, int64_t out_cols, int64_t cols,
                        int64_t scale_cols, int grid, int bits, int x_type, int kernel) {
    return fogzo_cuda_probe_matmul_flips_workspace(in<void>(x), in<uint8_t>(base), x_sides, rows, out_cols, cols,
                                                   scale_cols, grid, bits, x_type, kernel);
}

int probe_matmul_flips(Address x, Address x_scale, Address base, Address index, Address code, Address count,
                       int64_t capacity, Address scale, Address bias, Address y, Address memory, int64_t memory_bytes,
                       int64_t x_sides, int64_t sides, int64_t rows, int64_t out_cols, int64_t cols, int64_t scale_rows,
                       int64_t scale_cols, int grid, int bits, int x_type, int kernel, Address stream) {
    return fogzo_cuda_probe_matmul_flips(
        in<void>(x), in<float>(x_scale), in<uint8_t>(base), in<int64_t>(index), in<uint8_t>(code), in<int64_t>(count),
        capacity, in<float>(scale), in<float>(bias), out<void>(y), out<void>(memory), memory_bytes, x_sides, sides,
        rows, out_cols, cols, scale_rows, scale_cols, grid, bits, x_type, kernel, out<void>(stream));
}

}  // namespace

void bind_probe_matmul(py::module_& m) {
    m.def("probe_matmul", probe_matmul, Release());
    m.def("probe_matmul_workspace", workspace, Release());
    m.def("probe_matmul_flips", probe_matmul_flips, Release());
    m.def("probe_matmul_flips_workspace", flips_workspace, Release());
}

// fogzo_kernels._cuda: device pointers, sizes and the stream as integers in, a fogzo_status out.
#include <pybind11/pybind11.h>

#include "fogzo/cuda.h"

namespace py = pybind11;

void bind_probe_matmul(py::module_& m);  // bind_cuda_probe_matmul.cpp

namespace {

int noise(uint64_t out, uint64_t table, int64_t rows, int64_t cols, int64_t offset, int64_t row_pitch, int surrogate,
          int kind, uint64_t seed, int64_t step, int64_t tensor, int64_t probe, uint64_t stream) {
    return fogzo_cuda_noise(reinterpret_cast<float*>(out), reinterpret_cast<const float*>(table), rows, cols, offset,
                            row_pitch, surrogate, kind, seed, step, tensor, probe, reinterpret_cast<void*>(stream));
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
    m.doc() = "CUDA kernels of fogzo_kernels; csrc/include/fogzo/cuda.h says what each does.";
    m.def("noise", noise, py::call_guard<py::gil_scoped_release>());
    bind_probe_matmul(m);
    m.def("device_count", fogzo_cuda_device_count);
    m.def("status_text", fogzo_status_text);
}

// fogzo_kernels._cuda: device pointers, sizes and the stream as integers in, a fogzo_status out.
#include <tuple>

#include "bind.h"
#include "fogzo/cuda.h"

void bind_probe_matmul(py::module_& m);  // bind_cuda_probe_matmul.cpp

namespace {

// seed_at, step_at, gamma_at, norm_at, seed, step, gamma, norm.
using Scalars = std::tuple<Address, Address, Address, Address, uint64_t, int64_t, double, float>;

fogzo_cuda_scalars scalars_of(const Scalars& s) {
    return {in<int64_t>(std::get<0>(s)),
            in<int64_t>(std::get<1>(s)),
            in<double>(std::get<2>(s)),
            in<float>(std::get<3>(s)),
            std::get<4>(s),
            std::get<5>(s),
            std::get<6>(s),
            std::get<7>(s)};
}

int noise(Address u, Address table, int64_t rows, int64_t cols, int64_t offset, int64_t row_pitch, int surrogate,
          int kind, const Scalars& scalars, int64_t tensor, int64_t probe, Address stream) {
    const fogzo_cuda_scalars given = scalars_of(scalars);
    return fogzo_cuda_noise(out<float>(u), in<float>(table), rows, cols, offset, row_pitch, surrogate, kind, &given,
                            tensor, probe, out<void>(stream));
}

int quantize(Address w, Address scale, Address codes, int64_t rows, int64_t cols, int64_t scale_rows,
             int64_t scale_cols, int grid, int bits, Address stream) {
    return fogzo_cuda_quantize(in<float>(w), in<float>(scale), out<uint8_t>(codes), rows, cols, scale_rows, scale_cols,
                               grid, bits, out<void>(stream));
}

int dequantize(Address codes, Address scale, Address values, int64_t rows, int64_t cols, int64_t scale_rows,
               int64_t scale_cols, int grid, int bits, Address stream) {
    return fogzo_cuda_dequantize(in<uint8_t>(codes), in<float>(scale), out<float>(values), rows, cols, scale_rows,
                                 scale_cols, grid, bits, out<void>(stream));
}

int pack(Address codes, Address bytes, int64_t rows, int64_t cols, int bits, Address stream) {
    return fogzo_cuda_pack(in<uint8_t>(codes), out<uint8_t>(bytes), rows, cols, bits, out<void>(stream));
}

int unpack(Address bytes, Address codes, int64_t rows, int64_t cols, int bits, Address stream) {
    return fogzo_cuda_unpack(in<uint8_t>(bytes), out<uint8_t>(codes), rows, cols, bits, out<void>(stream));
}

int hadamard(Address x, Address rotated, int64_t rows, int64_t cols, int64_t block, Address stream) {
    return fogzo_cuda_hadamard(in<float>(x), out<float>(rotated), rows, cols, block, out<void>(stream));
}

int hadamard_quantize(Address w, Address values, Address codes, Address scale, int64_t rows, int64_t cols,
                      double multiple, int grid, int bits, Address stream) {
    return fogzo_cuda_hadamard_quantize(in<float>(w), out<float>(values), out<uint8_t>(codes), out<float>(scale), rows,
                                        cols, multiple, grid, bits, out<void>(stream));
}

int fake_quantize(Address w, Address scale, Address values, int64_t rows, int64_t cols, int64_t scale_rows,
                  int64_t scale_cols, int grid, int bits, Address stream) {
    return fogzo_cuda_fake_quantize(in<float>(w), in<float>(scale), out<float>(values), rows, cols, scale_rows,
                                    scale_cols, grid, bits, out<void>(stream));
}

int fake_quantize_backward(Address grad, Address w, Address scale, Address grad_w, Address grad_scale,
                           Address workspace, int64_t workspace_bytes, int64_t rows, int64_t cols, int64_t scale_rows,
                           int64_t scale_cols, int grid, int bits, int surrogate, float limit, Address stream) {
    return fogzo_cuda_fake_quantize_backward(in<float>(grad), in<float>(w), in<float>(scale), out<float>(grad_w),
                                             out<float>(grad_scale), out<void>(workspace), workspace_bytes, rows, cols,
                                             scale_rows, scale_cols, grid, bits, surrogate, limit, out<void>(stream));
}

int whitened_norm(const std::vector<Row>& rows, int kind, Address norm, Address workspace, int64_t workspace_bytes,
                  Address stream) {
    return fogzo_cuda_whitened_norm(tensors_of(rows).data(), static_cast<int64_t>(rows.size()), kind, out<float>(norm),
                                    out<void>(workspace), workspace_bytes, out<void>(stream));
}

int64_t whitened_norm_workspace(const std::vector<Row>& rows) {
    return fogzo_cuda_whitened_norm_workspace(tensors_of(rows).data(), static_cast<int64_t>(rows.size()));
}

int perturb_quantize_many(const std::vector<Row>& rows, Address table, int kind, int form, int sides, int64_t probes,
                          int64_t first_probe, const Scalars& scalars, Address stream) {
    const fogzo_cuda_scalars given = scalars_of(scalars);
    return fogzo_cuda_perturb_quantize_many(tensors_of(rows).data(), static_cast<int64_t>(rows.size()),
                                            in<float>(table), kind, form, sides, probes, first_probe, &given,
                                            out<void>(stream));
}

int find_flips(Address base, Address codes, Address index, Address code, Address count, Address workspace,
               int64_t workspace_bytes, int64_t sides, int64_t elements, int64_t capacity, Address stream) {
    return fogzo_cuda_find_flips(in<uint8_t>(base), in<uint8_t>(codes), out<int64_t>(index), out<uint8_t>(code),
                                 out<int64_t>(count), out<void>(workspace), workspace_bytes, sides, elements, capacity,
                                 out<void>(stream));
}

int assemble_gradient_many(const std::vector<Row>& rows, Address differences, Address table, int kind, int64_t probes,
                           int64_t first_probe, const Scalars& scalars, Address stream) {
    const fogzo_cuda_scalars given = scalars_of(scalars);
    return fogzo_cuda_assemble_gradient_many(tensors_of(rows).data(), static_cast<int64_t>(rows.size()),
                                             in<float>(differences), in<float>(table), kind, probes, first_probe,
                                             &given, out<void>(stream));
}

int quantize_activation(Address x, Address codes, Address x_scale, int64_t rows, int64_t cols, int bits, int x_type,
                        Address stream) {
    return fogzo_cuda_quantize_activation(in<void>(x), out<int8_t>(codes), out<float>(x_scale), rows, cols, bits,
                                          x_type, out<void>(stream));
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
    m.doc() = "CUDA kernels of fogzo_kernels; csrc/include/fogzo/cuda.h says what each does.";
    m.def("noise", noise, Release());
    m.def("quantize", quantize, Release());
    m.def("dequantize", dequantize, Release());
    m.def("pack", pack, Release());
    m.def("unpack", unpack, Release());
    m.def("hadamard", hadamard, Release());
    m.def("hadamard_quantize", hadamard_quantize, Release());
    m.def("fake_quantize", fake_quantize, Release());
    m.def("fake_quantize_backward", fake_quantize_backward, Release());
    m.def("fake_quantize_backward_workspace", fogzo_cuda_fake_quantize_backward_workspace);
    m.def("whitened_norm", whitened_norm, Release());
    m.def("whitened_norm_workspace", whitened_norm_workspace);
    m.def("perturb_quantize_many", perturb_quantize_many, Release());
    m.def("find_flips", find_flips, Release());
    m.def("find_flips_workspace", fogzo_cuda_find_flips_workspace);
    m.def("assemble_gradient_many", assemble_gradient_many, Release());
    m.def("quantize_activation", quantize_activation, Release());
    bind_probe_matmul(m);
    m.def("device_count", fogzo_cuda_device_count);
    m.def("status_text", fogzo_status_text);
}

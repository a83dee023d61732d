// fogzo_kernels._cpu: pointers and sizes as integers in, a fogzo_status out.
#include "bind.h"
#include "fogzo/cpu.h"

namespace {

std::vector<const float*> pointers(const std::vector<Address>& addresses) {
    std::vector<const float*> result;
    for (const Address address : addresses) {
        result.push_back(in<float>(address));
    }
    return result;
}

int noise(Address u, Address table, int64_t rows, int64_t cols, int64_t offset, int64_t row_pitch, int surrogate,
          int kind, uint64_t seed, int64_t step, int64_t tensor, int64_t probe, int threads) {
    return fogzo_cpu_noise(out<float>(u), in<float>(table), rows, cols, offset, row_pitch, surrogate, kind, seed, step,
                           tensor, probe, threads);
}

int quantize(Address w, Address scale, Address codes, int64_t rows, int64_t cols, int64_t scale_rows,
             int64_t scale_cols, int grid, int bits, int threads) {
    return fogzo_cpu_quantize(in<float>(w), in<float>(scale), out<uint8_t>(codes), rows, cols, scale_rows, scale_cols,
                              grid, bits, threads);
}

int dequantize(Address codes, Address scale, Address values, int64_t rows, int64_t cols, int64_t scale_rows,
               int64_t scale_cols, int grid, int bits, int threads) {
    return fogzo_cpu_dequantize(in<uint8_t>(codes), in<float>(scale), out<float>(values), rows, cols, scale_rows,
                                scale_cols, grid, bits, threads);
}

int pack(Address codes, Address bytes, int64_t rows, int64_t cols, int bits, int threads) {
    return fogzo_cpu_pack(in<uint8_t>(codes), out<uint8_t>(bytes), rows, cols, bits, threads);
}

int unpack(Address bytes, Address codes, int64_t rows, int64_t cols, int bits, int threads) {
    return fogzo_cpu_unpack(in<uint8_t>(bytes), out<uint8_t>(codes), rows, cols, bits, threads);
}

int hadamard(Address x, Address rotated, int64_t rows, int64_t cols, int64_t block, int threads) {
    return fogzo_cpu_hadamard(in<float>(x), out<float>(rotated), rows, cols, block, threads);
}

int compute_scale(Address w, Address scale, int64_t scales, int64_t count, int rule, double factor, double least,
                  int threads) {
    return fogzo_cpu_compute_scale(in<float>(w), out<float>(scale), scales, count, rule, factor, least, threads);
}

int hadamard_quantize(Address w, Address values, Address codes, Address scale, int64_t rows, int64_t cols,
                      double multiple, int grid, int bits, int threads) {
    return fogzo_cpu_hadamard_quantize(in<float>(w), out<float>(values), out<uint8_t>(codes), out<float>(scale), rows,
                                       cols, multiple, grid, bits, threads);
}

int fake_quantize(Address w, Address scale, Address values, int64_t rows, int64_t cols, int64_t scale_rows,
                  int64_t scale_cols, int grid, int bits, int threads) {
    return fogzo_cpu_fake_quantize(in<float>(w), in<float>(scale), out<float>(values), rows, cols, scale_rows,
                                   scale_cols, grid, bits, threads);
}

int fake_quantize_backward(Address grad, Address w, Address scale, Address grad_w, Address grad_scale, int64_t rows,
                           int64_t cols, int64_t scale_rows, int64_t scale_cols, int grid, int bits, int surrogate,
                           float limit, int threads) {
    return fogzo_cpu_fake_quantize_backward(in<float>(grad), in<float>(w), in<float>(scale), out<float>(grad_w),
                                            out<float>(grad_scale), rows, cols, scale_rows, scale_cols, grid, bits,
                                            surrogate, limit, threads);
}

int whitened_norm(const std::vector<Address>& grads, const std::vector<Address>& scales,
                  const std::vector<int64_t>& rows, const std::vector<int64_t>& cols,
                  const std::vector<int64_t>& scale_rows, const std::vector<int64_t>& scale_cols,
                  const std::vector<int>& surrogates, int kind, Address norm, int threads) {
    const size_t count = grads.size();
    if (scales.size() != count || rows.size() != count || cols.size() != count || scale_rows.size() != count ||
        scale_cols.size() != count || surrogates.size() != count) {
        return FOGZO_BAD_SIZE;
    }
    return fogzo_cpu_whitened_norm(pointers(grads).data(), pointers(scales).data(), rows.data(), cols.data(),
                                   scale_rows.data(), scale_cols.data(), surrogates.data(), static_cast<int64_t>(count),
                                   kind, out<float>(norm), threads);
}

int perturb_quantize(Address w, Address grad, Address scale, Address sides_out, Address flip_count, Address table,
                     int64_t rows, int64_t cols, int64_t scale_rows, int64_t scale_cols, int64_t offset,
                     int64_t row_pitch, int grid, int bits, int surrogate, int kind, int form, int sides,
                     int64_t probes, int64_t first_probe, uint64_t seed, int64_t step, int64_t tensor, double gamma,
                     float norm, int threads) {
    return fogzo_cpu_perturb_quantize(in<float>(w), in<float>(grad), in<float>(scale), out<void>(sides_out),
                                      out<int64_t>(flip_count), in<float>(table), rows, cols, scale_rows, scale_cols,
                                      offset, row_pitch, grid, bits, surrogate, kind, form, sides, probes, first_probe,
                                      seed, step, tensor, gamma, norm, threads);
}

int assemble_gradient(Address grad, Address scale, Address differences, Address gradient, Address table, int64_t rows,
                      int64_t cols, int64_t scale_rows, int64_t scale_cols, int64_t offset, int64_t row_pitch,
                      int surrogate, int kind, int64_t probes, int64_t first_probe, uint64_t seed, int64_t step,
                      int64_t tensor, double gamma, float norm, int threads) {
    return fogzo_cpu_assemble_gradient(in<float>(grad), in<float>(scale), in<float>(differences), out<float>(gradient),
                                       in<float>(table), rows, cols, scale_rows, scale_cols, offset, row_pitch,
                                       surrogate, kind, probes, first_probe, seed, step, tensor, gamma, norm, threads);
}

int perturb_quantize_many(const std::vector<Row>& rows, Address table, int kind, int form, int sides, int64_t probes,
                          int64_t first_probe, uint64_t seed, int64_t step, double gamma, float norm, int threads) {
    return fogzo_cpu_perturb_quantize_many(tensors_of(rows).data(), static_cast<int64_t>(rows.size()), in<float>(table),
                                           kind, form, sides, probes, first_probe, seed, step, gamma, norm, threads);
}

int assemble_gradient_many(const std::vector<Row>& rows, Address differences, Address table, int kind, int64_t probes,
                           int64_t first_probe, uint64_t seed, int64_t step, double gamma, float norm, int threads) {
    return fogzo_cpu_assemble_gradient_many(tensors_of(rows).data(), static_cast<int64_t>(rows.size()),
                                            in<float>(differences), in<float>(table), kind, probes, first_probe, seed,
                                            step, gamma, norm, threads);
}

int find_flips(Address base, Address codes, Address index, Address code, Address count, int64_t sides, int64_t elements,
               int64_t capacity, int threads) {
    return fogzo_cpu_find_flips(in<uint8_t>(base), in<uint8_t>(codes), out<int64_t>(index), out<uint8_t>(code),
                                out<int64_t>(count), sides, elements, capacity, threads);
}

int probe_matmul(Address x, Address x_scale, Address codes, Address scale, Address bias, Address y, Address workspace,
                 int64_t workspace_bytes, int64_t x_sides, int64_t code_sides, int64_t rows, int64_t out_cols,
                 int64_t cols, int64_t scale_rows, int64_t scale_cols, int grid, int bits, int stored_bits, int x_type,
                 int threads) {
    return fogzo_cpu_probe_matmul(in<void>(x), in<float>(x_scale), in<uint8_t>(codes), in<float>(scale),
                                  in<float>(bias), out<void>(y), out<void>(workspace), workspace_bytes, x_sides,
                                  code_sides, rows, out_cols, cols, scale_rows, scale_cols, grid, bits, stored_bits,
                                  x_type, threads);
}

int probe_matmul_flips(Address x, Address x_scale, Address base, Address index, Address code, Address count,
                       int64_t capacity, Address scale, Address bias, Address y, Address workspace,
                       int64_t workspace_bytes, int64_t x_sides, int64_t sides, int64_t rows, int64_t out_cols,
                       int64_t cols, int64_t scale_rows, int64_t scale_cols, int grid, int bits, int x_type,
                       int threads) {
    return fogzo_cpu_probe_matmul_flips(
        in<void>(x), in<float>(x_scale), in<uint8_t>(base), in<int64_t>(index), in<uint8_t>(code), in<int64_t>(count),
        capacity, in<float>(scale), in<float>(bias), out<float>(y), out<void>(workspace), workspace_bytes, x_sides,
        sides, rows, out_cols, cols, scale_rows, scale_cols, grid, bits, x_type, threads);
}

int quantize_activation(Address x, Address codes, Address x_scale, int64_t rows, int64_t cols, int bits, int threads) {
    return fogzo_cpu_quantize_activation(in<float>(x), out<int8_t>(codes), out<float>(x_scale), rows, cols, bits,
                                         threads);
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
    m.doc() = "CPU kernels of fogzo_kernels; csrc/include/fogzo/cpu.h says what each does.";
    m.def("noise", noise, Release());
    m.def("quantize", quantize, Release());
    m.def("dequantize", dequantize, Release());
    m.def("pack", pack, Release());
    m.def("unpack", unpack, Release());
    m.def("hadamard", hadamard, Release());
    m.def("compute_scale", compute_scale, Release());
    m.def("hadamard_quantize", hadamard_quantize, Release());
    m.def("fake_quantize", fake_quantize, Release());
    m.def("fake_quantize_backward", fake_quantize_backward, Release());
    m.def("whitened_norm", whitened_norm, Release());
    m.def("perturb_quantize", perturb_quantize, Release());
    m.def("assemble_gradient", assemble_gradient, Release());
    m.def("perturb_quantize_many", perturb_quantize_many, Release());
    m.def("assemble_gradient_many", assemble_gradient_many, Release());
    m.def("find_flips", find_flips, Release());
    m.def("probe_matmul", probe_matmul, Release());
    m.def("probe_matmul_workspace", fogzo_cpu_probe_matmul_workspace);
    m.def("probe_matmul_flips", probe_matmul_flips, Release());
    m.def("probe_matmul_flips_workspace", fogzo_cpu_probe_matmul_flips_workspace);
    m.def("probe_matmul_flips_corrected", fogzo_cpu_probe_matmul_flips_corrected);
    m.def("quantize_activation", quantize_activation, Release());
    m.def("isa", fogzo_cpu_isa);
    m.def("set_isa", [](const std::string& name) { return fogzo_cpu_set_isa(name.c_str()); });
    m.def("status_text", fogzo_status_text);
}

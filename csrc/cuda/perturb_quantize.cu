#include "many.cuh"
#include "perturb_quantize.cuh"

using namespace fogzo;

namespace {

struct Call {
    const float* table;
    int noise;
    int form;
    int sides;
    int64_t probes;
    int64_t first_probe;
    const fogzo_cuda_scalars& scalars;
};

int check_grid(const fogzo_tensor& t, const Call& call) {
    if (t.grid == kNoGrid) {
        return call.form != kValues || t.flip_count != nullptr ? FOGZO_BAD_GRID : FOGZO_OK;
    }
    if (!grid_exists(t.grid, t.bits)) {
        return FOGZO_BAD_GRID;
    }
    if (!surrogate_fits(t.grid, t.surrogate, call.noise)) {
        return FOGZO_BAD_PAIR;
    }
    if (call.form < 0 || call.form >= kForms) {
        return FOGZO_BAD_FORM;
    }
    const int per_byte = 8 / make_grid(t.grid, t.bits).storage_bits;
    const bool whole = t.cols % per_byte == 0 && t.offset % per_byte == 0 && t.row_pitch % per_byte == 0;
    return call.form == kPacked && !whole ? FOGZO_BAD_ALIGNMENT : FOGZO_OK;
}

int check(const fogzo_tensor& t, const Call& call) {
    const int64_t most = INT64_MAX / 4;
    int status =
        check_draw(draw_of(t, call.scalars, call.noise, call.table), t.rows, t.cols, call.first_probe, call.probes);
    if (status != FOGZO_OK) {
        return status;
    }
    if (call.sides != 1 && call.sides != 2) {
        return FOGZO_BAD_SIDES;
    }
    status = check_scales(t.rows, t.cols, t.scale, t.scale_rows, t.scale_cols,
                          call.probes > most ? most : call.probes * call.sides);
    if (status == FOGZO_OK) {
        status = check_grid(t, call);
    }
    if (status == FOGZO_OK) {
        status = check_gamma(call.scalars);
    }
    if (status != FOGZO_OK) {
        return status;
    }
    if (t.rows * t.cols == 0) {
        return element_aligned(t.flip_count) ? FOGZO_OK : FOGZO_UNALIGNED;
    }
    if (t.w == nullptr || t.grad == nullptr || t.out == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    if (!element_aligned(t.w, t.grad, t.scale, t.flip_count, call.table) || !scalars_aligned(call.scalars) ||
        (call.form == kValues && !element_aligned(static_cast<const float*>(t.out)))) {
        return FOGZO_UNALIGNED;
    }
    return segments_of(t).all_blocks() > kMostGridBlocks ? FOGZO_BAD_SIZE : FOGZO_OK;
}

}  // namespace

extern "C" int fogzo_cuda_perturb_quantize_many(const fogzo_tensor* tensors, int64_t count, const float* table,
                                                int noise, int form, int sides, int64_t probes, int64_t first_probe,
                                                const fogzo_cuda_scalars* scalars, void* stream) {
    if (count < 0) {
        return FOGZO_BAD_SIZE;
    }
    if (scalars == nullptr || (count > 0 && tensors == nullptr)) {
        return FOGZO_NULL_POINTER;
    }
    const Call call = {table, noise, form, sides, probes, first_probe, *scalars};
    for (int64_t t = 0; t < count; ++t) {
        const int status = check(tensors[t], call);
        if (status != FOGZO_OK) {
            return status;
        }
    }
    for (int64_t t = 0; t < count; ++t) {
        if (tensors[t].flip_count != nullptr &&
            !succeeded(cudaMemsetAsync(tensors[t].flip_count, 0, sizeof(int64_t) * static_cast<size_t>(probes * sides),
                                       static_cast<cudaStream_t>(stream)))) {
            return FOGZO_DEVICE_ERROR;
        }
    }
    PerturbJob job = {};
    job.probing = {*scalars, table, probes, static_cast<uint32_t>(first_probe)};
    job.form = form;
    job.sides = sides;
    const auto wide = [](const fogzo_tensor& t) {
        return aligned(t.w, 16) && aligned(t.grad, 16) && aligned(t.out, 16);
    };
    return launch_many(tensors, count, noise, job, wide, [stream](auto kind, const PerturbJob& filled) {
        const unsigned blocks = static_cast<unsigned>(filled.table.blocks);
        return launch<perturb_quantize_kernel<kind.value>>(blocks, kThreads, 0, stream, filled);
    });
}

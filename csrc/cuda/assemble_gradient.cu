#include "assemble_gradient.cuh"
#include "many.cuh"

using namespace fogzo;

namespace {

struct Call {
    const float* differences;
    const float* table;
    int noise;
    int64_t probes;
    int64_t first_probe;
    const fogzo_cuda_scalars& scalars;
};

int check(const fogzo_tensor& t, const Call& call) {
    int status = check_scales(t.rows, t.cols, t.scale, t.scale_rows, t.scale_cols, 1);
    if (status == FOGZO_OK) {
        status =
            check_draw(draw_of(t, call.scalars, call.noise, call.table), t.rows, t.cols, call.first_probe, call.probes);
    }
    if (status == FOGZO_OK) {
        status = check_gamma(call.scalars);
    }
    if (status != FOGZO_OK) {
        return status;
    }
    if (t.rows * t.cols == 0) {
        return FOGZO_OK;
    }
    if (t.grad == nullptr || call.differences == nullptr || t.out == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    if (!element_aligned(t.grad, t.scale, call.differences, call.table, static_cast<const float*>(t.out)) ||
        !scalars_aligned(call.scalars)) {
        return FOGZO_UNALIGNED;
    }
    return segments_of(t).all_blocks() > kMostGridBlocks ? FOGZO_BAD_SIZE : FOGZO_OK;
}

}  // namespace

extern "C" int fogzo_cuda_assemble_gradient_many(const fogzo_tensor* tensors, int64_t count, const float* differences,
                                                 const float* table, int noise, int64_t probes, int64_t first_probe,
                                                 const fogzo_cuda_scalars* scalars, void* stream) {
    if (count < 0) {
        return FOGZO_BAD_SIZE;
    }
    if (scalars == nullptr || (count > 0 && tensors == nullptr)) {
        return FOGZO_NULL_POINTER;
    }
    const Call call = {differences, table, noise, probes, first_probe, *scalars};
    for (int64_t t = 0; t < count; ++t) {
        const int status = check(tensors[t], call);
        if (status != FOGZO_OK) {
            return status;
        }
    }
    AssembleJob job = {};
    job.probing = {*scalars, table, probes, static_cast<uint32_t>(first_probe)};
    job.differences = differences;
    const auto wide = [](const fogzo_tensor& t) { return aligned(t.grad, 16) && aligned(t.out, 16); };
    return launch_many(tensors, count, noise, job, wide, [stream](auto kind, const AssembleJob& filled) {
        const unsigned blocks = static_cast<unsigned>(filled.table.blocks);
        return launch<assemble_gradient_kernel<kind.value>>(blocks, kThreads, 0, stream, filled);
    });
}

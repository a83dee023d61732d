#include "assemble_gradient.cuh"

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

int start(const AssembleJob& job, int kind, void* stream) {
    const unsigned blocks = static_cast<unsigned>(job.table.blocks);
    if (blocks == 0) {
        return FOGZO_OK;
    }
    switch (kind) {
    case kUniform: return launch<assemble_gradient_kernel<kUniform>>(blocks, kThreads, 0, stream, job);
    case kOfTable: return launch<assemble_gradient_kernel<kOfTable>>(blocks, kThreads, 0, stream, job);
    case kOfRoot: return launch<assemble_gradient_kernel<kOfRoot>>(blocks, kThreads, 0, stream, job);
    default: return launch<assemble_gradient_kernel<kOfBits>>(blocks, kThreads, 0, stream, job);
    }
}

// The tensors of one kind of noise, as few launches.
int assemble(const fogzo_tensor* tensors, int64_t count, const Call& call, int kind, void* stream) {
    AssembleJob job = {};
    job.probing = {call.scalars, call.table, call.probes, static_cast<uint32_t>(call.first_probe)};
    job.differences = call.differences;
    for (int64_t t = 0; t < count; ++t) {
        if (tensors[t].rows * tensors[t].cols == 0 || draw_kind(tensors[t].surrogate, call.noise) != kind) {
            continue;
        }
        const bool vector = aligned(tensors[t].grad, 16) && aligned(tensors[t].out, 16);
        while (!add_row(job.table, tensors[t], call.noise, call.scalars.gamma, vector)) {
            const int status = start(job, kind, stream);
            if (status != FOGZO_OK) {
                return status;
            }
            job.table = {};
        }
    }
    return start(job, kind, stream);
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
    for (int kind = 0; kind < kDrawKinds; ++kind) {
        const int status = assemble(tensors, count, call, kind, stream);
        if (status != FOGZO_OK) {
            return status;
        }
    }
    return FOGZO_OK;
}

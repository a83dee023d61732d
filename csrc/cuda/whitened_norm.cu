#include "whitened_norm.cuh"

#include "fogzo/cuda.h"

using namespace fogzo;

namespace {

int64_t chunks_of(const fogzo_tensor& t) { return (t.rows * t.cols + kNormChunk - 1) / kNormChunk; }

int check(const fogzo_tensor& t) {
    const int status = check_scales(t.rows, t.cols, t.scale, t.scale_rows, t.scale_cols, 1);
    if (status != FOGZO_OK) {
        return status;
    }
    if (t.surrogate < 0 || t.surrogate >= kSurrogates) {
        return FOGZO_BAD_SURROGATE;
    }
    if (t.rows * t.cols > 0 && t.grad == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    return element_aligned(t.grad, t.scale) ? FOGZO_OK : FOGZO_UNALIGNED;
}

int start(NormJob& job, void* stream) {
    if (job.blocks == 0) {
        return FOGZO_OK;
    }
    const int status = launch<whitened_norm_part_kernel>(static_cast<unsigned>(job.blocks), kThreads, 0, stream, job);
    job.parts += job.blocks;
    job.blocks = 0;
    job.tensors = 0;
    return status;
}

}  // namespace

extern "C" int64_t fogzo_cuda_whitened_norm_workspace(const fogzo_tensor* tensors, int64_t count) {
    int64_t chunks = 0;
    for (int64_t t = 0; tensors != nullptr && t < count; ++t) {
        chunks += check(tensors[t]) == FOGZO_OK ? chunks_of(tensors[t]) : 0;
    }
    return chunks * static_cast<int64_t>(sizeof(double));
}

extern "C" int fogzo_cuda_whitened_norm(const fogzo_tensor* tensors, int64_t count, int noise, float* out,
                                        void* workspace, int64_t workspace_bytes, void* stream) {
    if (count < 0) {
        return FOGZO_BAD_SIZE;
    }
    if (noise < 0 || noise >= kNoiseKinds) {
        return FOGZO_BAD_NOISE;
    }
    if (out == nullptr || (count > 0 && tensors == nullptr)) {
        return FOGZO_NULL_POINTER;
    }
    if (!element_aligned(out)) {
        return FOGZO_UNALIGNED;
    }
    for (int64_t t = 0; t < count; ++t) {
        const int status = check(tensors[t]);
        if (status != FOGZO_OK) {
            return status;
        }
    }
    const int64_t needed = fogzo_cuda_whitened_norm_workspace(tensors, count);
    if (workspace_bytes < needed || (needed > 0 && !aligned(workspace, 8))) {
        return FOGZO_BAD_WORKSPACE;
    }
    if (needed > 0 && workspace == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    NormJob job = {};
    job.parts = static_cast<double*>(workspace);
    for (int64_t i = 0; i < count; ++i) {
        const fogzo_tensor& t = tensors[i];
        if (t.rows * t.cols == 0) {
            continue;
        }
        if (job.tensors == kMostNorms) {
            const int status = start(job, stream);
            if (status != FOGZO_OK) {
                return status;
            }
        }
        job.rows[job.tensors++] = {t.grad,
                                   scales_of(t.scale, t.rows, t.cols, t.scale_rows, t.scale_cols),
                                   t.rows * t.cols,
                                   job.blocks,
                                   static_cast<float>(radius(t.surrogate, noise)),
                                   aligned(t.grad, 16)};
        job.blocks += chunks_of(t);
    }
    const int status = start(job, stream);
    if (status != FOGZO_OK) {
        return status;
    }
    return launch<whitened_norm_total_kernel>(1, kTotalThreads, 0, stream, static_cast<const double*>(workspace), out,
                                              needed / static_cast<int64_t>(sizeof(double)));
}

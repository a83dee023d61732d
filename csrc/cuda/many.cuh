// The tensors of a call for many: by kind of noise, in as few launches as tables hold them.
#pragma once
#include "direction.cuh"

namespace fogzo {

// Calls start(kind, job) with a table of tensors, kind a std::integral_constant. wide(tensor): TensorRow's vector.
template <class Job, class Wide, class Start>
int launch_many(const fogzo_tensor* tensors, int64_t count, int noise, Job job, Wide wide, Start start) {
    const double gamma = job.probing.scalars.gamma;
    for (int kind = 0; kind < kDrawKinds; ++kind) {
        const auto flush = [&] {
            const int status = job.table.blocks == 0 ? FOGZO_OK
                                                     : with_constant<kUniform, kOfTable, kOfRoot, kOfBits>(
                                                           kind, [&](auto constant) { return start(constant, job); });
            job.table = {};
            return status;
        };
        for (int64_t t = 0; t < count; ++t) {
            if (tensors[t].rows * tensors[t].cols == 0 || draw_kind(tensors[t].surrogate, noise) != kind) {
                continue;
            }
            while (!add_row(job.table, tensors[t], noise, gamma, wide(tensors[t]))) {
                if (const int status = flush()) {
                    return status;
                }
            }
        }
        if (const int status = flush()) {
            return status;
        }
    }
    return FOGZO_OK;
}

}  // namespace fogzo

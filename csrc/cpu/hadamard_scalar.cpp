#include "hadamard_loops.h"
#include "kernels.h"

namespace fogzo {
namespace {

void rotate(float* x, int64_t m, float factor) {
    for (int64_t stride = 1; stride < m; stride *= 2) {
        stage(x, m, stride);
    }
    scale_all(x, m, factor);
}

}  // namespace

const HadamardKernels kScalarHadamard = {rotate};

}  // namespace fogzo

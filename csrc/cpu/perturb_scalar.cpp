#include "fogzo/estimator.h"
#include "kernels.h"
#include "perturb_loops.h"

namespace fogzo {
namespace {

// The grid's kind is a constant inside the loop, so that the loop has no branch.
template <int kind> void codes_as(const Run& run, Grid grid, uint8_t* plus, uint8_t* minus) {
    grid.kind = kind;
    for (int i = 0; i < run.n; ++i) {
        const float x = run.w[i] * run.inverse;
        const float d = direction(run, i);
        plus[i] = static_cast<uint8_t>(code_of(grid, x + d));
        if (minus != nullptr) {
            minus[i] = static_cast<uint8_t>(code_of(grid, x - d));
        }
    }
}

void codes(const Run& run, const Grid& grid, uint8_t* plus, uint8_t* minus) {
    if (grid.kind == kSign) {
        codes_as<kSign>(run, grid, plus, minus);
    } else {
        codes_as<kTernary>(run, grid, plus, minus);
    }
}

}  // namespace

const PerturbKernels kScalarPerturb = {codes, moved, accumulate, scaled};

}  // namespace fogzo

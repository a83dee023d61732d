// What no test of results can reach on a small machine: that no share of k has more int8 products than 32 bits hold,
// that shares cover k, and that the workspace's arrays lie apart. Prints what failed; exits 1 then.
#include <cstdio>
#include <initializer_list>

#include "probe_matmul_plan.h"

using namespace fogzo;

namespace {

int failures = 0;

void check(bool right, const char* what, const MatmulSizes& z) {
    if (!right) {
        std::printf("FAILED: %s: %lld x %lld x %lld, %lld groups\n", what, static_cast<long long>(z.rows),
                    static_cast<long long>(z.n), static_cast<long long>(z.k), static_cast<long long>(z.groups));
        ++failures;
    }
}

void plan_of(const MatmulSizes& z, int processors) {
    MatmulPlan plan;
    check(check_sizes(z) == FOGZO_OK && make_plan(z, nullptr, nullptr, processors, &plan) == FOGZO_OK, "a plan", z);
    const int64_t a_share = int64_t(plan.job.steps_a_split) * kStep;
    const int64_t k = plan.padded * z.groups;
    check(z.x_type != kInt8X || a_share <= kMostProducts, "int8 sums of a share fit in 32 bits", z);
    check(a_share * plan.job.splits >= k && a_share * (plan.job.splits - 1) < k, "shares cover k", z);
    check(plan.packed_codes - plan.packed_x >= (plan.pack_x ? z.x_rows() * plan.job.x_pitch : 0) &&
              plan.x_sums - plan.packed_codes >= (plan.pack_codes ? z.code_sides * z.n * plan.job.code_pitch : 0) &&
              plan.parts - plan.x_sums >= (z.x_sums ? z.x_rows() * z.groups * 4 : 0) &&
              plan.bytes >=
                  plan.parts + (plan.has_parts ? plan.job.splits * plan.job.sides * plan.job.rows * z.n * 4 : 0),
          "arrays lie apart", z);
}

}  // namespace

int main() {
    for (const int64_t k : {int64_t(1), int64_t(127), int64_t(4096), kMostProducts, kMostProducts + 1, int64_t(1) << 20,
                            (int64_t(1) << 31) - 64}) {
        for (const int64_t groups : {int64_t(1), int64_t(2), int64_t(64)}) {
            for (const int type : {kFloat32X, kBfloat16X, kInt8X}) {
                for (const int which : {0, 1, 2, 3}) {
                    const bool extra = which % 2 == 1;
                    const bool wgmma = which / 2 == 1;
                    if (k % groups == 0) {
                        plan_of({1, extra ? 3 : 1, 7, 5, k, groups, type, 2, false, false, wgmma}, 132);
                        plan_of({3, extra ? 1 : 3, 7, 5, k, groups, type, 8, type == kInt8X, extra, wgmma}, 2);
                    }
                }
            }
        }
    }
    if (failures == 0) {
        std::printf("matmul_plan: all passed\n");
    }
    return failures == 0 ? 0 : 1;
}

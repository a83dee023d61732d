// float64 sums in one order for every instruction set: element i of a run goes to lane i % 8.
#pragma once
#include "fogzo/macros.h"

namespace fogzo {

constexpr int kLanesOfSum = 8;

FOGZO_FN double sum_of_lanes(const double* lanes) {
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

}  // namespace fogzo

// What a launcher was asked to draw, and whether the noise contract has room for it.
#pragma once
#include "fogzo/noise.h"
#include "fogzo/status.h"

namespace fogzo {

struct Draw {
    int surrogate;
    int noise;
    uint64_t seed;
    int64_t step;
    int64_t tensor;
    const float* table;
    int64_t offset;
    int64_t row_pitch;

    int64_t number(int64_t row, int64_t col) const { return offset + row * row_pitch + col; }
};

// A size or a pitch beyond the largest element number is refused before it is multiplied.
FOGZO_FN bool numbers_fit(const Draw& draw, int64_t rows, int64_t cols) {
    if (draw.offset < 0 || draw.offset >= kMaxElements || cols > kMaxElements) {
        return false;
    }
    const int64_t room = kMaxElements - draw.offset - cols;  // for (rows - 1) * row_pitch
    return room >= 0 && (rows <= 1 || draw.row_pitch <= room / (rows - 1));
}

FOGZO_FN int check_draw(const Draw& draw, int64_t rows, int64_t cols, int64_t first_probe, int64_t probes) {
    const int64_t word = int64_t(1) << 32;
    if (draw.surrogate < 0 || draw.surrogate >= kSurrogates) {
        return FOGZO_BAD_SURROGATE;
    }
    if (draw.noise < 0 || draw.noise >= kNoiseKinds) {
        return FOGZO_BAD_NOISE;
    }
    if (draw.surrogate == kTanh && draw.noise == kPublished && draw.table == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    if (probes < 1) {
        return FOGZO_BAD_PROBES;
    }
    if (draw.step < 0 || draw.step >= word || draw.tensor < 0 || draw.tensor >= word - 1 || first_probe < 0 ||
        first_probe >= word || probes > word - first_probe) {
        return FOGZO_BAD_COUNTER;
    }
    if (rows < 1 || cols < 1) {
        return FOGZO_OK;
    }
    if (draw.row_pitch < cols || draw.row_pitch > kMaxElements) {
        return FOGZO_BAD_PITCH;
    }
    return numbers_fit(draw, rows, cols) ? FOGZO_OK : FOGZO_TOO_MANY_ELEMENTS;
}

}  // namespace fogzo

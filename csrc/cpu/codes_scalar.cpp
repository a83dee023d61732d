#include "fogzo/pack.h"
#include "kernels.h"

namespace fogzo {
namespace {

template <int kind> void quantize_as(const float* w, int n, float inverse, Grid grid, uint8_t* codes) {
    grid.kind = kind;
    for (int i = 0; i < n; ++i) {
        codes[i] = static_cast<uint8_t>(code_of(grid, w[i] * inverse));
    }
}

void quantize(const float* w, int n, float inverse, const Grid& grid, uint8_t* codes) {
    if (grid.kind == kSign) {
        quantize_as<kSign>(w, n, inverse, grid, codes);
    } else {
        quantize_as<kTernary>(w, n, inverse, grid, codes);
    }
}

void values(const uint8_t* codes, int n, float a, const Grid& grid, float* out) {
    for (int i = 0; i < n; ++i) {
        out[i] = a * value_of(grid, codes[i]);
    }
}

void pack(const uint8_t* codes, int n, int bits, uint8_t* bytes) { pack_codes(codes, n, bits, bytes); }

void unpack(const uint8_t* bytes, int n, int bits, uint8_t* codes) { unpack_codes(bytes, n, bits, codes); }

int differing(const uint8_t* codes, const uint8_t* base, int n) {
    int count = 0;
    for (int i = 0; i < n; ++i) {
        count += codes[i] != base[i] ? 1 : 0;
    }
    return count;
}

}  // namespace

const CodeKernels kScalarCode = {quantize, values, pack, unpack, differing};

}  // namespace fogzo

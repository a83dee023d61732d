#include "fogzo/pack.h"

#include "fogzo/cpu.h"
#include "kernels.h"
#include "view.h"

using namespace fogzo;

namespace {

int check(const uint8_t* codes, const uint8_t* bytes, const View& view, int bits) {
    int64_t elements = 0;
    if (view.rows < 0 || view.cols < 0 || __builtin_mul_overflow(view.rows, view.cols, &elements) ||
        elements > INT64_MAX / 8) {
        return FOGZO_BAD_SIZE;
    }
    if (bits != 1 && bits != 2 && bits != 4 && bits != 8) {
        return FOGZO_BAD_BITS;
    }
    return elements > 0 && (codes == nullptr || bytes == nullptr) ? FOGZO_NULL_POINTER : FOGZO_OK;
}

// body(element, count, byte) for each block; rows that end inside a byte stay apart.
template <class Body> void each_block(const View& view, int bits, int threads, Body body) {
    const Walk walk = make_walk(view, view.cols * bits % 8 == 0);
    const int64_t pitch = packed_bytes(view.cols, bits);
    each_range(walk.blocks, threads, [&](int64_t first, int64_t last) {
        for (int64_t b = first; b < last; ++b) {
            const Block block = walk.at(b);
            body(block.first, block.n, block.row * pitch + packed_bytes(block.col, bits));
        }
    });
}

}  // namespace

extern "C" int fogzo_cpu_pack(const uint8_t* codes, uint8_t* bytes, int64_t rows, int64_t cols, int bits, int threads) {
    const View view = {rows, cols, nullptr, 1, 1};
    const int status = check(codes, bytes, view, bits);
    if (status != FOGZO_OK || view.size() == 0) {
        return status;
    }
    const CodeKernels& kernel = *kernels().code;
    each_block(view, bits, threads,
               [&](int64_t element, int n, int64_t byte) { kernel.pack(codes + element, n, bits, bytes + byte); });
    return FOGZO_OK;
}

extern "C" int fogzo_cpu_unpack(const uint8_t* bytes, uint8_t* codes, int64_t rows, int64_t cols, int bits,
                                int threads) {
    const View view = {rows, cols, nullptr, 1, 1};
    const int status = check(codes, bytes, view, bits);
    if (status != FOGZO_OK || view.size() == 0) {
        return status;
    }
    const CodeKernels& kernel = *kernels().code;
    each_block(view, bits, threads,
               [&](int64_t element, int n, int64_t byte) { kernel.unpack(bytes + byte, n, bits, codes + element); });
    return FOGZO_OK;
}

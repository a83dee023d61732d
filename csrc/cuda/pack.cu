#include "pack.cuh"

#include "fogzo/cuda.h"
#include "four.cuh"
#include "launch.cuh"

using namespace fogzo;

namespace {

int check(const uint8_t* codes, const uint8_t* bytes, int64_t rows, int64_t cols, int bits) {
    const int status = check_sizes(rows, cols, 1);
    if (status != FOGZO_OK) {
        return status;
    }
    if (bits != 1 && bits != 2 && bits != 4 && bits != 8) {
        return FOGZO_BAD_BITS;
    }
    return rows * cols > 0 && (codes == nullptr || bytes == nullptr) ? FOGZO_NULL_POINTER : FOGZO_OK;
}

bool whole(const uint8_t* codes, const uint8_t* bytes, int64_t rows, int64_t cols, int bits) {
    return (rows == 1 || cols * bits % 8 == 0) && aligned(codes, 16) &&
           aligned(bytes, static_cast<uintptr_t>(2 * bits));
}

}  // namespace

extern "C" int fogzo_cuda_pack(const uint8_t* codes, uint8_t* bytes, int64_t rows, int64_t cols, int bits,
                               void* stream) {
    const int status = check(codes, bytes, rows, cols, bits);
    if (status != FOGZO_OK || rows * cols == 0) {
        return status;
    }
    if (!whole(codes, bytes, rows, cols, bits)) {
        const int64_t pitch = packed_bytes(cols, bits);
        return launch<pack_rows_kernel>(blocks_for(rows * pitch, kPackThreads), kPackThreads, 0, stream, codes, bytes,
                                        rows, cols, pitch, bits);
    }
    return with_constant<1, 2, 4, 8>(bits, [=](auto known) {
        return launch<pack_kernel<known.value>>(blocks_for(rows * cols, kPackCodes * kPackThreads), kPackThreads, 0,
                                                stream, codes, bytes, rows * cols);
    });
}

extern "C" int fogzo_cuda_unpack(const uint8_t* bytes, uint8_t* codes, int64_t rows, int64_t cols, int bits,
                                 void* stream) {
    const int status = check(codes, bytes, rows, cols, bits);
    if (status != FOGZO_OK || rows * cols == 0) {
        return status;
    }
    if (!whole(codes, bytes, rows, cols, bits)) {
        const int64_t pitch = packed_bytes(cols, bits);
        return launch<unpack_rows_kernel>(blocks_for(rows * pitch, kPackThreads), kPackThreads, 0, stream, bytes, codes,
                                          rows, cols, pitch, bits);
    }
    return with_constant<1, 2, 4, 8>(bits, [=](auto known) {
        return launch<unpack_kernel<known.value>>(blocks_for(rows * cols, kPackCodes * kPackThreads), kPackThreads, 0,
                                                  stream, bytes, codes, rows * cols);
    });
}

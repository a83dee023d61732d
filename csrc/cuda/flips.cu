#include "flips.cuh"

#include "fogzo/cuda.h"
#include "launch.cuh"

using namespace fogzo;

namespace {

// A side without elements has a chunk too, which clears its room.
int64_t chunks_of(int64_t elements) { return elements > 0 ? (elements + kFlipChunk - 1) / kFlipChunk : 1; }

}  // namespace

extern "C" int64_t fogzo_cuda_find_flips_workspace(int64_t sides, int64_t elements) {
    if (sides < 1 || elements < 0 || check_sizes(sides, elements, 1) != FOGZO_OK) {
        return 0;
    }
    return sides * chunks_of(elements) * static_cast<int64_t>(sizeof(int64_t));
}

extern "C" int fogzo_cuda_find_flips(const uint8_t* base, const uint8_t* codes, int64_t* index, uint8_t* code,
                                     int64_t* count, void* workspace, int64_t workspace_bytes, int64_t sides,
                                     int64_t elements, int64_t capacity, void* stream) {
    if (check_sizes(sides, elements, 1) != FOGZO_OK || check_sizes(sides, capacity, 1) != FOGZO_OK) {
        return FOGZO_BAD_SIZE;
    }
    if (sides == 0) {
        return FOGZO_OK;
    }
    if (count == nullptr || workspace == nullptr || (capacity > 0 && (index == nullptr || code == nullptr)) ||
        (elements > 0 && (base == nullptr || codes == nullptr))) {
        return FOGZO_NULL_POINTER;
    }
    if (!element_aligned(index, count)) {
        return FOGZO_UNALIGNED;
    }
    if (workspace_bytes < fogzo_cuda_find_flips_workspace(sides, elements) || !aligned(workspace, 8)) {
        return FOGZO_BAD_WORKSPACE;
    }
    const int64_t chunks = chunks_of(elements);
    const bool vector = aligned(base, 16) && aligned(codes, 16) && (sides == 1 || elements % 16 == 0);
    const FlipJob job = {base,  codes,    index,  code,     count, static_cast<int64_t*>(workspace),
                         sides, elements, chunks, capacity, vector};
    const unsigned blocks = blocks_for(sides * chunks, 1);
    int status = launch<count_flips_kernel>(blocks, kFlipThreads, 0, stream, job);
    if (status == FOGZO_OK) {
        status = launch<sum_flips_kernel>(blocks_for(sides, 1), kFlipThreads, 0, stream, job);
    }
    return status == FOGZO_OK ? launch<find_flips_kernel>(blocks, kFlipThreads, 0, stream, job) : status;
}

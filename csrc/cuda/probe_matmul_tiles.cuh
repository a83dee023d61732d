// The tiles of probe_matmul for one kind of x, one file of machine code each.
#pragma once
#include "probe_matmul.cuh"

namespace fogzo {

// Few rows wait for the codes; many of int8 keep tensor cores busy with the largest tile that registers hold.
template <int x_type, int shape> struct ShapeOf {
    using type = TileShape<64, 96, 2, 3, false, 2>;
};
template <> struct ShapeOf<kInt8X, kManyRows> {
    using type = TileShape<128, 192, 2, 6, false, 1>;
};
template <int x_type> struct ShapeOf<x_type, kFewRows> {
    using type = TileShape<16, 64, 1, 4, false, 4>;
};
template <int x_type> struct ShapeOf<x_type, kGroupScale> {
    using type = TileShape<64, 64, 2, 2, true, 2>;
};

template <int x_type, int bits, int shape> int launch_tiles(dim3 grid, void* stream, const MatmulJob& job) {
    using Shape = typename ShapeOf<x_type, shape>::type;
    return launch<probe_matmul_kernel<x_type, bits, Shape>>(grid, Shape::threads,
                                                            Stages<x_type, bits, Shape>::all_bytes, stream, job);
}

template <int x_type, int bits> int launch_shape(int shape, dim3 grid, void* stream, const MatmulJob& job) {
    switch (shape) {
    case kManyRows: return launch_tiles<x_type, bits, kManyRows>(grid, stream, job);
    case kFewRows: return launch_tiles<x_type, bits, kFewRows>(grid, stream, job);
    default: return launch_tiles<x_type, bits, kGroupScale>(grid, stream, job);
    }
}

template <int x_type> int launch_bits(int bits, int shape, dim3 grid, void* stream, const MatmulJob& job) {
    return with_constant<1, 2, 4, 8>(
        bits, [&](auto known) { return launch_shape<x_type, known.value>(shape, grid, stream, job); });
}

}  // namespace fogzo

// Compiled with AVX2: no std:: templates and no shared non-static functions here, as the linker may
// keep the AVX2 copy of those for the portable path.
#include <immintrin.h>

#include "fogzo/noise.h"
#include "tile.h"

namespace fogzo {
namespace {

inline __m256i splat(uint32_t value) { return _mm256_set1_epi32(static_cast<int>(value)); }

inline __m256i high_of(__m256i product) { return _mm256_shuffle_epi32(product, 0xF5); }

// Four blocks of Philox, in the low halves of lanes of 64 bits. The high halves hold what is left of
// products: a multiplication reads the low halves alone, so nothing needs to clear them.
struct Quad {
    __m256i c0;
    __m256i c1;
    __m256i c2;
    __m256i c3;
};

// A round waits for its products: what is there before them goes first, in whatever order gcc would
// have it.
inline __m256i early(__m256i word, __m256i key) {
    __m256i both = _mm256_xor_si256(word, key);
    asm("" : "+x"(both));
    return both;
}

inline Quad next_round(const Quad& c, __m256i key0, __m256i key1, const __m256i* factor) {
    const __m256i p0 = _mm256_mul_epu32(c.c0, factor[0]);
    const __m256i p1 = _mm256_mul_epu32(c.c2, factor[1]);
    return {_mm256_xor_si256(early(c.c1, key0), high_of(p1)), p1, _mm256_xor_si256(early(c.c3, key1), high_of(p0)), p0};
}

// Keys of each round. Words that all blocks share are in the keys of rounds 0 to 2: the first product
// of the step, in the round after it, and the first product of that.
struct Schedule {
    uint32_t key0[kPhiloxRounds];
    uint32_t key1[kPhiloxRounds];
};

inline Schedule make_schedule(Stream stream) {
    Schedule s;
    for (int round = 0; round < kPhiloxRounds; ++round) {
        const uint32_t turn = static_cast<uint32_t>(round);
        s.key0[round] = static_cast<uint32_t>(stream.seed) + turn * kPhiloxWeyl0;
        s.key1[round] = static_cast<uint32_t>(stream.seed >> 32) + turn * kPhiloxWeyl1;
    }
    const uint64_t first = static_cast<uint64_t>(kPhiloxMul1) * stream.step;
    const uint32_t word0 = static_cast<uint32_t>(first >> 32) ^ stream.probe ^ s.key0[0];
    const uint64_t next = static_cast<uint64_t>(kPhiloxMul0) * word0;
    s.key1[0] ^= stream.tensor;
    s.key0[1] ^= static_cast<uint32_t>(first);
    s.key1[1] ^= static_cast<uint32_t>(next >> 32);
    s.key1[2] ^= static_cast<uint32_t>(next);
    return s;
}

// What all lanes multiply by and turn over, round by round.
struct Splats {
    __m256i factor[2];
    __m256i key0[kPhiloxRounds];
    __m256i key1[kPhiloxRounds];
};

inline Splats make_splats(Stream stream) {
    const Schedule schedule = make_schedule(stream);
    Splats s;
    s.factor[0] = splat(kPhiloxMul0);
    s.factor[1] = splat(kPhiloxMul1);
    for (int round = 0; round < kPhiloxRounds; ++round) {
        s.key0[round] = splat(schedule.key0[round]);
        s.key1[round] = splat(schedule.key1[round]);
    }
    return s;
}

// Vectors that are left of a quad before the probe comes in: the product of the block, and what
// rounds 1 and 2 make of it.
constexpr int kStart = 4;

inline void start_quad(__m256i block, const Splats& s, __m256i* room) {
    const __m256i p = _mm256_mul_epu32(block, s.factor[0]);
    const __m256i q = _mm256_mul_epu32(_mm256_xor_si256(high_of(p), s.key1[0]), s.factor[1]);
    const __m256i r = _mm256_mul_epu32(_mm256_xor_si256(high_of(q), s.key0[1]), s.factor[0]);
    room[0] = p;
    room[1] = _mm256_xor_si256(q, s.key0[2]);
    room[2] = high_of(r);
    room[3] = _mm256_xor_si256(r, s.key1[3]);
}

// The counter after round 5.
inline Quad late_rounds(const __m256i* room, const Splats& s) {
    const __m256i p = _mm256_mul_epu32(_mm256_xor_si256(room[0], s.key1[1]), s.factor[1]);
    Quad c = {_mm256_xor_si256(room[1], high_of(p)), p, _mm256_xor_si256(room[2], s.key1[2]), room[3]};
    const __m256i p0 = _mm256_mul_epu32(c.c0, s.factor[0]);
    const __m256i p1 = _mm256_mul_epu32(c.c2, s.factor[1]);
    c = {_mm256_xor_si256(early(c.c1, s.key0[3]), high_of(p1)), p1, _mm256_xor_si256(c.c3, high_of(p0)), p0};
    c = next_round(c, s.key0[4], s.key1[4], s.factor);
    return next_round(c, s.key0[5], s.key1[5], s.factor);
}

template <int halves> inline __m256i in_order(__m256i even, __m256i odd) {
    return _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(even), _mm256_castsi256_ps(odd), halves));
}

// Eight blocks: of each four, the even quad holds the first two and the odd quad the others.
inline void finish_pair(const __m256i* room, const Splats& s, uint32_t* out) {
    constexpr int low = 0x88;
    constexpr int high = 0xDD;
    constexpr int last = kPhiloxRounds - 1;
    const Quad even = late_rounds(room, s);
    const Quad odd = late_rounds(room + kStart, s);
    const __m256i even0 = _mm256_mul_epu32(even.c0, s.factor[0]);
    const __m256i even1 = _mm256_mul_epu32(even.c2, s.factor[1]);
    const __m256i odd0 = _mm256_mul_epu32(odd.c0, s.factor[0]);
    const __m256i odd1 = _mm256_mul_epu32(odd.c2, s.factor[1]);
    const __m256i result[4] = {
        _mm256_xor_si256(early(in_order<low>(even.c1, odd.c1), s.key0[last]), in_order<high>(even1, odd1)),
        in_order<low>(even1, odd1),
        _mm256_xor_si256(early(in_order<low>(even.c3, odd.c3), s.key1[last]), in_order<high>(even0, odd0)),
        in_order<low>(even0, odd0)};
    for (int w = 0; w < 4; ++w) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + w * kLanes), result[w]);
    }
}

// A pair is started while the one before it is finished: neither chain of products fills the pipes.
void first_words(Stream stream, uint32_t first_block, TileStart* start, uint32_t* out) {
    const Splats s = make_splats(stream);
    const __m256i even = _mm256_setr_epi32(0, 0, 1, 0, 4, 0, 5, 0);
    const __m256i odd = _mm256_setr_epi32(2, 0, 3, 0, 6, 0, 7, 0);
    __m256i* room = reinterpret_cast<__m256i*>(start->room);
    const auto start_pair = [&](int i) {
        const __m256i block = splat(first_block + static_cast<uint32_t>(i));
        start_quad(_mm256_add_epi32(block, even), s, room + i * kStart / 4);
        start_quad(_mm256_add_epi32(block, odd), s, room + i * kStart / 4 + kStart);
    };
    start_pair(0);
    for (int i = 8; i < kLanes; i += 8) {
        start_pair(i);
        finish_pair(room + (i - 8) * kStart / 4, s, out + i - 8);
    }
    finish_pair(room + (kLanes - 8) * kStart / 4, s, out + kLanes - 8);
}

void next_words(Stream stream, const TileStart& start, uint32_t* out) {
    const Splats s = make_splats(stream);
    const __m256i* room = reinterpret_cast<const __m256i*>(start.room);
    for (int i = 0; i < kLanes; i += 8) {
        finish_pair(room + i * kStart / 4, s, out + i);
    }
}

// z is held as the integer 32768 * (2h - 65535), exact in float32; it comes from the half by one
// shift or mask and by turning over the bits of h - 32768 and of the odd unit.
inline __m256i odd_of_low(__m256i word) { return _mm256_xor_si256(_mm256_slli_epi32(word, 16), splat(0x80008000u)); }

inline __m256i odd_of_high(__m256i word) {
    return _mm256_xor_si256(_mm256_and_si256(word, splat(0xFFFF0000u)), splat(0x80008000u));
}

constexpr float kUnit = 1.0f / 2147483648.0f;  // z of the integer 1

template <int surrogate> inline __m256 noise_of(__m256i odd, const float* table, __m256 factor) {
    if constexpr (surrogate == kIdentity || surrogate == kHardtanh) {
        return _mm256_mul_ps(_mm256_cvtepi32_ps(odd), factor);
    }
    const __m256 sign = _mm256_and_ps(_mm256_castsi256_ps(odd), _mm256_set1_ps(-0.0f));
    __m256 magnitude;
    if constexpr (surrogate == kTanh) {
        const __m256i k = _mm256_srli_epi32(_mm256_abs_epi32(odd), 16);
        magnitude = _mm256_i32gather_ps(table, k, 4);
    } else {
        const __m256 one = _mm256_set1_ps(1.0f);
        const __m256 z = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_abs_epi32(odd)), _mm256_set1_ps(kUnit));
        magnitude = _mm256_sub_ps(one, _mm256_sqrt_ps(_mm256_sub_ps(one, z)));
    }
    return _mm256_mul_ps(_mm256_or_ps(magnitude, sign), factor);
}

template <int surrogate> void published_as(const uint32_t* in, const float* table, float across, float* out) {
    const __m256 factor = _mm256_set1_ps(across);
    for (int w = 0; w < 4; ++w) {
        for (int i = 0; i < kLanes; i += 8) {
            const __m256i word = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + w * kLanes + i));
            float* at = out + 2 * w * kLanes + i;
            _mm256_storeu_ps(at, noise_of<surrogate>(odd_of_low(word), table, factor));
            _mm256_storeu_ps(at + kLanes, noise_of<surrogate>(odd_of_high(word), table, factor));
        }
    }
}

// Powers of two go into B where that is exact, that is unless B would leave the normal range.
void published(const uint32_t* in, int surrogate, const float* table, float across, float* out) {
    const bool exact = across == 0.0f || across >= 1.0e-18f;
    if (surrogate == kTanh) {
        published_as<kTanh>(in, table, across, out);
    } else if (surrogate == kApproxSign) {
        published_as<kApproxSign>(in, table, across, out);
    } else if (!exact) {
        kScalarTile.published(in, surrogate, table, across, out);
    } else if (surrogate == kHardtanh) {
        published_as<kHardtanh>(in, table, across * kUnit, out);
    } else {
        published_as<kIdentity>(in, table, across * (0.5f * kUnit), out);
    }
}

void rademacher(const uint32_t* in, int first_bit, float magnitude, float* out) {
    const __m256i bits = _mm256_castps_si256(_mm256_set1_ps(magnitude));
    const __m256i top = splat(0x80000000u);
    for (int j = 0; j < kTileBits; ++j) {
        const int bit = first_bit + j;
        const uint32_t* word = in + (bit >> 5) * kLanes;
        const __m128i to_top = _mm_cvtsi32_si128(31 - (bit & 31));
        for (int i = 0; i < kLanes; i += 8) {
            const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(word + i));
            const __m256i sign = _mm256_and_si256(_mm256_sll_epi32(lanes, to_top), top);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + j * kLanes + i), _mm256_xor_si256(bits, sign));
        }
    }
}

}  // namespace

const TileKernels kAvx2Tile = {first_words, next_words, published, rademacher};

}  // namespace fogzo

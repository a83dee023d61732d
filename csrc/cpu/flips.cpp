#include <cstring>

#include "fogzo/cpu.h"
#include "view.h"

using namespace fogzo;

namespace {

constexpr int64_t kWord = 8;                // codes compared at a time
constexpr int64_t kParts = 64;              // of a side, at most
constexpr int64_t kPartCodes = 8192;        // of a part, at least; whole words
constexpr int64_t kWorthThreads = 1 << 16;  // codes of a side

bool same_word(const uint8_t* a, const uint8_t* b) {
    uint64_t left, right;
    std::memcpy(&left, a, sizeof left);
    std::memcpy(&right, b, sizeof right);
    return left == right;
}

struct Side {
    const uint8_t* base;
    const uint8_t* codes;
    int64_t* index;
    uint8_t* code;
    int64_t capacity;
};

// Flips among elements first .. last - 1, `found` lying before them; returns how many there are up to last, those
// beyond capacity too.
int64_t find(const Side& s, int64_t first, int64_t last, int64_t found) {
    for (int64_t word = first; word < last; word += kWord) {
        const int64_t end = word + kWord < last ? word + kWord : last;
        if (end == word + kWord && same_word(s.base + word, s.codes + word)) {
            continue;
        }
        for (int64_t k = word; k < end; ++k) {
            if (s.base[k] == s.codes[k]) {
                continue;
            }
            if (found < s.capacity) {
                s.index[found] = k;
                s.code[found] = s.codes[k];
            }
            ++found;
        }
    }
    return found;
}

// The same over a whole side. Several threads count parts first, so each knows where its flips begin: all is read
// twice.
int64_t find_all(const Side& s, int64_t elements, int threads) {
    const int64_t share = (elements / kParts + kWord) / kWord * kWord;
    const int64_t part = share > kPartCodes ? share : kPartCodes;
    const int64_t parts = (elements + part - 1) / part;
    if (threads < 2 || parts < 2) {
        return find(s, 0, elements, 0);
    }
    const auto end = [&](int64_t p) { return (p + 1) * part < elements ? (p + 1) * part : elements; };
    const Side counted = {s.base, s.codes, nullptr, nullptr, 0};
    int64_t before[kParts + 1] = {};
    each_range(parts, threads, [&](int64_t first, int64_t last) {
        for (int64_t p = first; p < last; ++p) {
            before[p + 1] = find(counted, p * part, end(p), 0);
        }
    });
    for (int64_t p = 0; p < parts; ++p) {
        before[p + 1] += before[p];
    }
    each_range(parts, threads, [&](int64_t first, int64_t last) {
        for (int64_t p = first; p < last; ++p) {
            find(s, p * part, end(p), before[p]);
        }
    });
    return before[parts];
}

}  // namespace

extern "C" int fogzo_cpu_find_flips(const uint8_t* base, const uint8_t* codes, int64_t* index, uint8_t* code,
                                    int64_t* count, int64_t sides, int64_t elements, int64_t capacity, int threads) {
    int64_t total = 0;
    if (sides < 0 || elements < 0 || capacity < 0 || __builtin_mul_overflow(sides, elements, &total) ||
        __builtin_mul_overflow(sides, capacity, &total) || total > INT64_MAX / 8) {
        return FOGZO_BAD_SIZE;
    }
    if ((sides > 0 && count == nullptr) || (total > 0 && (index == nullptr || code == nullptr)) ||
        (sides * elements > 0 && (base == nullptr || codes == nullptr))) {
        return FOGZO_NULL_POINTER;
    }
    threads = elements < kWorthThreads ? 1 : thread_count(threads);
    const bool by_side = threads <= 2 * sides;  // a thread a side is quicker than parts, which are read twice
    each_index(sides, by_side ? threads : 1, [&](int64_t s, int) {
        const Side side = {base, codes + s * elements, index + s * capacity, code + s * capacity, capacity};
        count[s] = find_all(side, elements, by_side ? 1 : threads);
        for (int64_t i = count[s]; i < capacity; ++i) {
            side.index[i] = -1;
            side.code[i] = 0;
        }
    });
    return FOGZO_OK;
}

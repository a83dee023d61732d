#include <cstring>

#include "fogzo/cpu.h"
#include "view.h"

using namespace fogzo;

namespace {

constexpr int64_t kWord = 8;  // codes compared at a time

bool same_word(const uint8_t* a, const uint8_t* b) {
    uint64_t left, right;
    std::memcpy(&left, a, sizeof left);
    std::memcpy(&right, b, sizeof right);
    return left == right;
}

// The differing codes of one side, in order; returns how many there were, also beyond capacity.
int64_t find(const uint8_t* base, const uint8_t* codes, int64_t elements, int64_t capacity, int64_t* index,
             uint8_t* code) {
    int64_t found = 0;
    for (int64_t word = 0; word < elements; word += kWord) {
        const int64_t end = word + kWord < elements ? word + kWord : elements;
        if (end == word + kWord && same_word(base + word, codes + word)) {
            continue;
        }
        for (int64_t k = word; k < end; ++k) {
            if (base[k] == codes[k]) {
                continue;
            }
            if (found < capacity) {
                index[found] = k;
                code[found] = codes[k];
            }
            ++found;
        }
    }
    return found;
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
    each_range(sides, threads, [&](int64_t first, int64_t last) {
        for (int64_t s = first; s < last; ++s) {
            int64_t* numbers = index + s * capacity;
            uint8_t* changed = code + s * capacity;
            count[s] = find(base, codes + s * elements, elements, capacity, numbers, changed);
            for (int64_t i = count[s]; i < capacity; ++i) {
                numbers[i] = -1;
                changed[i] = 0;
            }
        }
    });
    return FOGZO_OK;
}

// What the emulator's own tests count their failures with, and the numbers that they multiply.
#pragma once
#include <cstdint>
#include <cstdio>
#include <vector>

static int failures = 0;

static inline void check(bool right, const char* what) {
    if (!right) {
        std::printf("FAILED: %s\n", what);
        ++failures;
    }
}

static inline std::vector<int> numbers(int count, int most, uint32_t seed) {
    std::vector<int> all;
    for (int i = 0; i < count; ++i) {
        seed = seed * 1664525u + 1013904223u;
        all.push_back(static_cast<int>(seed >> 16) % (2 * most + 1) - most);
    }
    return all;
}

static inline uint32_t byte_of(int x) { return static_cast<uint32_t>(x) & 0xFFu; }

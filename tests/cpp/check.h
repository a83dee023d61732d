// Counting checks, and buffers whose surroundings are watched.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

struct Tally {
    int passed = 0;
    int failed = 0;
};

inline Tally& tally() {
    static Tally counts;
    return counts;
}

inline void check(bool ok, const char* text, const char* file, int line) {
    if (ok) {
        ++tally().passed;
    } else {
        ++tally().failed;
        std::printf("%s:%d: failed: %s\n", file, line, text);
    }
}

#define CHECK(condition) check((condition), #condition, __FILE__, __LINE__)

// count elements between guard bytes, all 0xA5 before a call.
template <class T> class Guarded {
  public:
    explicit Guarded(int64_t count)
        : count_(count), bytes_(2 * kGuard + sizeof(T) * static_cast<size_t>(count), 0xA5) {}

    T* data() { return reinterpret_cast<T*>(bytes_.data() + kGuard); }
    T& operator[](int64_t i) { return data()[i]; }
    int64_t size() const { return count_; }

    bool intact() const {
        for (size_t i = 0; i < kGuard; ++i) {
            if (bytes_[i] != 0xA5 || bytes_[bytes_.size() - 1 - i] != 0xA5) {
                return false;
            }
        }
        return true;
    }

    bool untouched() const {
        for (const uint8_t byte : bytes_) {
            if (byte != 0xA5) {
                return false;
            }
        }
        return true;
    }

    bool operator==(const Guarded& other) const { return bytes_ == other.bytes_; }

  private:
    static constexpr size_t kGuard = 64;
    int64_t count_;
    std::vector<uint8_t> bytes_;
};

inline uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// float32(atanh((2k + 1) / 65536)), k = 0 .. 32767.
const float* tanh_table();

// Small numbers of both signs, repeatable, with a few exact ties and zeros among them.
std::vector<float> some_weights(int64_t count, uint32_t seed);

void test_philox();
void test_noise();
void test_grid();
void test_header();
void test_pack();
void test_codes_and_rotation();
void test_kernels();
void test_many();
void test_refusals();

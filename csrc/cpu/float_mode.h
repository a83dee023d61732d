// Arithmetic as the results are defined: rounding to nearest, subnormal numbers kept.
#pragma once

#if defined(__SSE__)
#include <xmmintrin.h>
#elif defined(__aarch64__)
#include <cstdint>
#endif

namespace fogzo {

// While it lives, the thread computes that way whatever its caller has set, as
// a program can do for one thread alone.
class FloatMode {
  public:
    FloatMode() : found_(read()) {
        if ((found_ & kMask) != 0) {
            write(found_ & ~kMask);
        }
    }
    ~FloatMode() {
        if ((found_ & kMask) != 0) {
            write(found_);
        }
    }
    FloatMode(const FloatMode&) = delete;
    FloatMode& operator=(const FloatMode&) = delete;

  private:
#if defined(__SSE__)
    using Word = unsigned int;
    static constexpr Word kMask = 0xE040;  // flush to zero, rounding, denormals are zeros
    static Word read() { return _mm_getcsr(); }
    static void write(Word word) { _mm_setcsr(word); }
#elif defined(__aarch64__)
    using Word = uint64_t;
    static constexpr Word kMask = Word(7) << 22;  // flush to zero, rounding
    static Word read() {
        Word word;
        __asm__ volatile("mrs %0, fpcr" : "=r"(word));
        return word;
    }
    static void write(Word word) { __asm__ volatile("msr fpcr, %0" : : "r"(word)); }
#else
    using Word = unsigned int;
    static constexpr Word kMask = 0;
    static Word read() { return 0; }
    static void write(Word) {}
#endif

    const Word found_;
};

}  // namespace fogzo

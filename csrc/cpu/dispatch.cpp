// Which instruction set runs: the best that CPU and build have, or FOGZO_ISA, or set_isa().
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "fogzo/cpu.h"
#include "kernels.h"
#include "probe_matmul.h"

namespace fogzo {
namespace {

bool have_avx2() {
#if defined(FOGZO_HAVE_AVX2)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
#else
    return false;
#endif
}

const Kernels kScalar = {"scalar",     &kScalarTile,   &kScalarPerturb, &kScalarCode,
                         &kScalarFake, &kScalarMatmul, &kScalarHadamard};
#if defined(FOGZO_HAVE_AVX2)
const Kernels kAvx2 = {"avx2", &kAvx2Tile, &kAvx2Perturb, &kAvx2Code, &kAvx2Fake, &kAvx2Matmul, &kAvx2Hadamard};
// Wider registers serve the matmul only: all else waits for memory.
const Kernels kVnni = {"avx512-vnni", &kAvx2Tile, &kAvx2Perturb, &kAvx2Code, &kAvx2Fake, &kVnniMatmul, &kAvx2Hadamard};
#endif

bool have_vnni() {
#if defined(FOGZO_HAVE_AVX2)
    return have_avx2() && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
           __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512vnni") != 0;
#else
    return false;
#endif
}

const Kernels* find(const char* name) {
    const bool automatic = std::strcmp(name, "auto") == 0;
#if defined(FOGZO_HAVE_AVX2)
    if ((automatic || std::strcmp(name, kVnni.name) == 0) && have_vnni()) {
        return &kVnni;
    }
    if ((automatic || std::strcmp(name, kAvx2.name) == 0) && have_avx2()) {
        return &kAvx2;
    }
#endif
    return automatic || std::strcmp(name, kScalar.name) == 0 ? &kScalar : nullptr;
}

// A name in FOGZO_ISA that this machine lacks falls back to the portable code, never to a crash.
const Kernels* at_load() {
    const char* name = std::getenv("FOGZO_ISA");
    const Kernels* found = find(name != nullptr && *name != '\0' ? name : "auto");
    return found != nullptr ? found : &kScalar;
}

std::atomic<const Kernels*> chosen{at_load()};

}  // namespace

const Kernels& kernels() { return *chosen.load(std::memory_order_relaxed); }

}  // namespace fogzo

extern "C" const char* fogzo_cpu_isa(void) { return fogzo::kernels().name; }

extern "C" int fogzo_cpu_set_isa(const char* name) {
    const fogzo::Kernels* found = name != nullptr ? fogzo::find(name) : nullptr;
    if (found == nullptr) {
        return FOGZO_BAD_ISA;
    }
    fogzo::chosen.store(found, std::memory_order_relaxed);
    return FOGZO_OK;
}

// Which instruction set runs: the best that CPU and build have, or FOGZO_ISA, or set_isa().
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "fogzo/cpu.h"
#include "tile.h"

namespace fogzo {
namespace {

bool have_avx2() {
#if defined(FOGZO_HAVE_AVX2)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") != 0;
#else
    return false;
#endif
}

const TileKernels* find(const char* name) {
    const bool automatic = std::strcmp(name, "auto") == 0;
#if defined(FOGZO_HAVE_AVX2)
    if ((automatic || std::strcmp(name, kAvx2Tile.name) == 0) && have_avx2()) {
        return &kAvx2Tile;
    }
#endif
    return automatic || std::strcmp(name, kScalarTile.name) == 0 ? &kScalarTile : nullptr;
}

// A name in FOGZO_ISA that this machine lacks falls back to the portable code, never to a crash.
const TileKernels* at_load() {
    const char* name = std::getenv("FOGZO_ISA");
    const TileKernels* kernels = find(name != nullptr && *name != '\0' ? name : "auto");
    return kernels != nullptr ? kernels : &kScalarTile;
}

std::atomic<const TileKernels*> chosen{at_load()};

}  // namespace

const TileKernels& tile_kernels() { return *chosen.load(std::memory_order_relaxed); }

}  // namespace fogzo

extern "C" const char* fogzo_cpu_isa(void) { return fogzo::tile_kernels().name; }

extern "C" int fogzo_cpu_set_isa(const char* name) {
    const fogzo::TileKernels* kernels = name != nullptr ? fogzo::find(name) : nullptr;
    if (kernels == nullptr) {
        return FOGZO_BAD_ISA;
    }
    fogzo::chosen.store(kernels, std::memory_order_relaxed);
    return FOGZO_OK;
}

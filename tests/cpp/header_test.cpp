// fogzo.h gives the numbers of the C++ headers to C programs.
#include "check.h"
#include "fogzo/fogzo.h"
#include "fogzo/grid.h"
#include "fogzo/noise.h"

using namespace fogzo;

static_assert(FOGZO_SIGN == static_cast<int>(kSign) && FOGZO_TERNARY == static_cast<int>(kTernary));
static_assert(FOGZO_MID_TREAD == static_cast<int>(kMidTread) && FOGZO_MID_RISE == static_cast<int>(kMidRise));
static_assert(FOGZO_IDENTITY == static_cast<int>(kIdentity) && FOGZO_CLIPPED == static_cast<int>(kClipped));
static_assert(FOGZO_HARDTANH == static_cast<int>(kHardtanh) && FOGZO_TANH == static_cast<int>(kTanh));
static_assert(FOGZO_APPROX_SIGN == static_cast<int>(kApproxSign) && FOGZO_TRUST == static_cast<int>(kTrust));
static_assert(FOGZO_TRUST + 1 == static_cast<int>(kSurrogates) &&
              FOGZO_RADEMACHER + 1 == static_cast<int>(kNoiseKinds));
static_assert(FOGZO_PUBLISHED == static_cast<int>(kPublished) && FOGZO_RADEMACHER == static_cast<int>(kRademacher));

void test_header() {
    for (int kind = FOGZO_SIGN; kind <= FOGZO_MID_RISE; ++kind) {
        for (int bits = 2; bits <= 8; ++bits) {
            CHECK(fogzo_stored_bits(kind, bits) == make_grid(kind, bits).storage_bits);
        }
    }
}

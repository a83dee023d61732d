// Codes of 1, 2, 4 or 8 bits packed into bytes along a row, lowest bits first.
#pragma once
#include <stdint.h>

#include "fogzo/macros.h"

namespace fogzo {

FOGZO_FN int64_t packed_bytes(int64_t count, int bits) { return (count * bits + 7) / 8; }

// bytes [packed_bytes(count, bits)]; the last byte is filled up with code 0.
FOGZO_FN void pack_codes(const uint8_t* codes, int64_t count, int bits, uint8_t* bytes) {
    const int per_byte = 8 / bits;
    const int64_t full = count / per_byte;
    for (int64_t b = 0; b < full; ++b) {
        uint32_t byte = 0;
        for (int i = 0; i < per_byte; ++i) {
            byte |= static_cast<uint32_t>(codes[b * per_byte + i]) << (i * bits);
        }
        bytes[b] = static_cast<uint8_t>(byte);
    }
    if (full * per_byte < count) {
        uint32_t byte = 0;
        for (int64_t i = full * per_byte; i < count; ++i) {
            byte |= static_cast<uint32_t>(codes[i]) << ((i - full * per_byte) * bits);
        }
        bytes[full] = static_cast<uint8_t>(byte);
    }
}

FOGZO_FN void unpack_codes(const uint8_t* bytes, int64_t count, int bits, uint8_t* codes) {
    const int per_byte = 8 / bits;
    for (int64_t i = 0; i < count; ++i) {
        codes[i] = static_cast<uint8_t>((bytes[i / per_byte] >> ((i % per_byte) * bits)) & ((1 << bits) - 1));
    }
}

}  // namespace fogzo

// B * (e u) of any run of elements of one probe, drawn tile by tile.
#pragma once
#include <cstdint>
#include <cstring>

#include "fogzo/draw.h"
#include "kernels.h"

namespace fogzo {

// Where the words of a tile begin, the same for all probes of a weight.
class TileStarts {
  public:
    void words(Stream stream, int64_t words_of, uint32_t* out) {
        if (words_of != words_of_) {
            kernels_.first_words(stream, static_cast<uint32_t>(words_of * kLanes), &start_, out);
            words_of_ = words_of;
        } else {
            kernels_.next_words(stream, start_, out);
        }
    }

  private:
    const TileKernels& kernels_ = *kernels().tile;  // one's start means nothing to the other
    int64_t words_of_ = -1;
    TileStart start_;
};

class NoiseSource {
  public:
    void open(const Draw& draw, float across, int64_t probe, TileStarts& starts) {
        starts_ = &starts;
        stream_ = {draw.seed, static_cast<uint32_t>(draw.step), static_cast<uint32_t>(draw.tensor),
                   static_cast<uint32_t>(probe)};
        surrogate_ = draw.surrogate;
        noise_ = draw.noise;
        table_ = draw.table;
        e_ = static_cast<float>(radius(draw.surrogate, draw.noise));
        across_ = across;
        tile_ = kNone;
        words_of_ = kNone;
        std::memset(noise_of_tile_ + kTile, 0, sizeof(float) * kSlack);
    }

    // Elements k .. k + n - 1: in the tile where it holds them all, else copied to room [n + kSlack].
    const float* at(int64_t k, int n, float* room) {
        const int64_t tile = k / kTile;
        const int begin = static_cast<int>(k % kTile);
        if (begin + n <= kTile && (tile == tile_ || n >= kAlone)) {
            draw_tile(tile);
            return noise_of_tile_ + begin;
        }
        read(k, n, room);
        return room;
    }

    // out [n]: elements k .. k + n - 1.
    void read(int64_t k, int n, float* out) {
        while (n > 0) {
            const int64_t tile = k / kTile;
            const int begin = static_cast<int>(k % kTile);
            const int count = n < kTile - begin ? n : kTile - begin;
            if (tile != tile_ && count < kAlone) {
                for (int i = 0; i < count; ++i) {
                    const uint64_t number = static_cast<uint64_t>(k + i);
                    out[i] = across_ * element_noise(stream_, number, surrogate_, noise_, e_, table_);
                }
            } else {
                draw_tile(tile);
                std::memcpy(out, noise_of_tile_ + begin, sizeof(float) * static_cast<size_t>(count));
            }
            k += count;
            out += count;
            n -= count;
        }
    }

  private:
    static constexpr int64_t kNone = -1;
    static constexpr int kAlone = 24;  // fewer elements than this are cheaper without their tile

    void draw_tile(int64_t tile) {
        if (tile == tile_) {
            return;
        }
        const int64_t per_words = noise_ == kRademacher ? kBitTile / kTile : 1;
        const int64_t words_of = tile / per_words;
        if (words_of != words_of_) {
            starts_->words(stream_, words_of, words_);
            words_of_ = words_of;
        }
        if (noise_ == kRademacher) {
            const int first_bit = static_cast<int>(tile % per_words) * kTileBits;
            kernels_.rademacher(words_, first_bit, across_ * e_, noise_of_tile_);
        } else {
            kernels_.published(words_, surrogate_, table_, across_, noise_of_tile_);
        }
        tile_ = tile;
    }

    const TileKernels& kernels_ = *kernels().tile;
    TileStarts* starts_ = nullptr;
    Stream stream_ = {};
    int surrogate_ = 0;
    int noise_ = 0;
    const float* table_ = nullptr;
    float e_ = 0.0f;
    float across_ = 0.0f;
    int64_t tile_ = kNone;
    int64_t words_of_ = kNone;
    alignas(64) uint32_t words_[4 * kLanes];
    alignas(64) float noise_of_tile_[kTile + kSlack];  // the slack is set once
};

// One source a probe while there are few, so that short blocks find their tile drawn.
class ProbeSources {
  public:
    ProbeSources(const Draw& draw, float across, int64_t first_probe)
        : draw_(draw), across_(across), first_probe_(first_probe) {}

    NoiseSource& of(int64_t probe) {
        const int slot = static_cast<int>(probe % kSlots);
        if (holds_[slot] != probe) {
            sources_[slot].open(draw_, across_, first_probe_ + probe, starts_);
            holds_[slot] = probe;
            signs_[slot] =
                probe_sign(draw_.seed, static_cast<uint32_t>(draw_.step), static_cast<uint32_t>(first_probe_ + probe));
        }
        return sources_[slot];
    }

    // Of the probe last asked for in its slot.
    float sign(int64_t probe) const { return signs_[probe % kSlots]; }

  private:
    static constexpr int kSlots = 8;
    const Draw draw_;
    const float across_;
    const int64_t first_probe_;
    int64_t holds_[kSlots] = {-1, -1, -1, -1, -1, -1, -1, -1};
    float signs_[kSlots] = {};
    TileStarts starts_;
    NoiseSource sources_[kSlots];
};

}  // namespace fogzo

// AMX for machines without it: tiles as arrays, one set for each thread, and the five intrinsics that are used.
#pragma once

#include <cstdint>
#include <cstring>

#include "../../csrc/numbers.h"

namespace liif {
namespace {

struct EmulatedTiles {
  int rows[8], bytes[8];
  float sums[8][16][16];
  uint16_t pairs[8][16][32];
};
inline thread_local EmulatedTiles emulated_tiles;

[[maybe_unused]] inline void emulated_loadconfig(const void* config) {
  const auto* from = static_cast<const uint8_t*>(config);
  for (int i = 0; i < 8; ++i) {
    uint16_t bytes;
    std::memcpy(&bytes, from + 16 + 2 * i, sizeof bytes);
    emulated_tiles.bytes[i] = bytes, emulated_tiles.rows[i] = from[48 + i];
  }
}

[[maybe_unused]] inline void emulated_loadd(int tile, const void* base, int64_t stride) {
  EmulatedTiles& t = emulated_tiles;
  std::memset(t.pairs[tile], 0, sizeof t.pairs[tile]);
  for (int r = 0; r < t.rows[tile]; ++r) {
    std::memcpy(t.pairs[tile][r], static_cast<const char*>(base) + r * stride, t.bytes[tile]);
  }
  std::memcpy(t.sums[tile], t.pairs[tile], sizeof t.sums[tile]);
}

[[maybe_unused]] inline void emulated_stored(int tile, void* base, int64_t stride) {
  EmulatedTiles& t = emulated_tiles;
  for (int r = 0; r < t.rows[tile]; ++r) std::memcpy(static_cast<char*>(base) + r * stride, t.sums[tile][r], t.bytes[tile]);
}

[[maybe_unused]] inline void emulated_dpbf16ps(int sums, int a, int b) {
  EmulatedTiles& t = emulated_tiles;
  for (int m = 0; m < t.rows[sums]; ++m) {
    for (int k = 0; k < t.bytes[a] / 4; ++k) {
      for (int n = 0; n < t.bytes[sums] / 4; ++n) {
        for (int i = 0; i < 2; ++i) {
          t.sums[sums][m][n] += bf16_to_float(t.pairs[a][m][2 * k + i]) * bf16_to_float(t.pairs[b][k][2 * n + i]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace liif

#define _tile_loadconfig emulated_loadconfig
#define _tile_loadd emulated_loadd
#define _tile_stored emulated_stored
#define _tile_dpbf16ps emulated_dpbf16ps
#define _tile_release()

// Products of bf16 by AMX, some tiles of rows by some of columns at a time, summed in f32; and what one step of them takes.
#pragma once

#include "floats_avx512bf16.h"

#ifdef LIIF_EMULATED
#include "emulated_amx.h"
#endif

#include <atomic>

#include "../decode.h"

namespace liif {
namespace {

constexpr int kTileSide = 16;  // rows of a tile, and sums in each

// The inputs of a row lie in runs of `length` neighbours; a step takes an equal part of a run, as much as a tile holds.
struct TileSteps {
  int count, length;  // of a run
};

inline TileSteps steps_of(int run) {
  int count = (run + 31) / 32;
  while (run % count || run / count % 2) ++count;
  return {count, run / count};
}

// The shapes of this thread's eight tiles while it lives: 0 to 3 for sums, 4 and 5 for rows of inputs, 6 and 7 for weights.
class TileShapes {
 public:
  explicit TileShapes(int step) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } shapes;
    for (int i = 0; i < 8; ++i) {
      shapes.bytes[i] = static_cast<uint16_t>(i == 4 || i == 5 ? 2 * step : 64);
      shapes.rows[i] = static_cast<uint8_t>(i < 6 ? kTileSide : step / 2);
    }
    asm volatile("" ::"r"(&shapes) : "memory");  // GCC 12 believes that only 8 of the 64 bytes are read
    _tile_loadconfig(&shapes);
  }
  ~TileShapes() { _tile_release(); }
  TileShapes(const TileShapes&) = delete;
  TileShapes& operator=(const TileShapes&) = delete;
};

struct TileProduct {
  const uint16_t* rows;  // the first
  // Elements from a row of a tile to the next, from one tile to the other, from a step to the next, and from a run.
  int64_t row_stride, tile_stride, step_stride, run_stride;
  int runs;  // of a row
  TileSteps steps;
  const uint16_t* weight;  // panels of 16 columns, `panel` elements apart: [inputs/2][16][2]
  int64_t panel;
  const float* bias;
};

// 16 M rows by 16 N columns of bias and products, to `sums` [16 M][16 N]; M and N are 1 or 2.
// `beside(step)` is called after each step and must not touch tiles: AMX and the rest of the processor work at the same
// time.
template <int M, int N, class Beside>
inline __attribute__((always_inline)) void tile_sums(const TileProduct& p, float* sums, Beside beside) {
  // What the tiles load was stored by plain code, of which the compiler knows no order to them.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  _tile_loadd(0, p.bias, 0);
  if constexpr (N == 2) _tile_loadd(1, p.bias + kTileSide, 0);
  if constexpr (M == 2) _tile_loadd(2, p.bias, 0);
  if constexpr (M == 2 && N == 2) _tile_loadd(3, p.bias + kTileSide, 0);
  const uint16_t *w = p.weight, *run = p.rows;
  const int64_t stride = 2 * p.row_stride;
  int step = 0;
  for (int i = 0; i < p.runs; ++i, run += p.run_stride) {
    const uint16_t* at = run;
    for (int k = 0; k < p.steps.count; ++k, at += p.step_stride, w += kPanel * p.steps.length) {
      // Loads stand between products: all in front, they would be waited for.
      _tile_loadd(4, at, stride);
      _tile_loadd(6, w, 64);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (N == 2) {
        _tile_loadd(7, w + p.panel, 64);
        _tile_dpbf16ps(1, 4, 7);
      }
      if constexpr (M == 2) {
        _tile_loadd(5, at + p.tile_stride, stride);
        _tile_dpbf16ps(2, 5, 6);
      }
      if constexpr (M == 2 && N == 2) _tile_dpbf16ps(3, 5, 7);
      beside(step++);
    }
  }
  constexpr int kStride = kTileSide * N, kTile = kTileSide * kStride;
  _tile_stored(0, sums, 4 * kStride);
  if constexpr (N == 2) _tile_stored(1, sums + kTileSide, 4 * kStride);
  if constexpr (M == 2) _tile_stored(2, sums + kTile, 4 * kStride);
  if constexpr (M == 2 && N == 2) _tile_stored(3, sums + kTile + kTileSide, 4 * kStride);
}

// How many of `count` things fall to each step of a product, so that all are done after the last.
inline int share_of(const TileProduct& p, int count) {
  const int steps = p.runs * p.steps.count;
  return (count + steps - 1) / steps;
}

}  // namespace
}  // namespace liif

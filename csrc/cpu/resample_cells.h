// Resampling where outputs lie as the fine columns do, and have their taps in common: nearly all at x4. Lanes are cells. A row of
// a strip lies by its columns' places in their cells, "sorted": column kFactor s + b at [b * pitch + s]. So what kFactor
// neighbouring outputs read is loaded once for all of them.
//
// V has what resample_simd.h asks for, and store_cells(out, v): bytes of [lane][place][colour].
#pragma once

#include "resample_rows.h"

namespace liif {
namespace {

template <class V>
struct Cells {
  using Reg = typename V::Reg;
  static constexpr int L = V::kLanes;
  static_assert(kStrip / kFactor % L == 0, "a strip is of whole vectors of cells");

  static int64_t pitch(int64_t cells) { return (cells + L - 1) / L * L; }
  // Where a column of a strip lies.
  static int64_t at(int64_t column, int64_t step) { return column % kFactor * step + column / kFactor; }

  template <class Elem>
  static void split_row(const ResampleParams& p, const Part& part, int64_t row, float (*out)[3][kStrip]) {
    const int64_t inside = part.inside(p, row), step = pitch(part.to - part.from);
    const Elem* z = static_cast<const Elem*>(p.z) + row * p.z_row_stride + part.from * kFineChannels;
    for (int64_t cell = 0; cell < step; cell += L, z += L * kFineChannels) {
      alignas(64) Elem own[L * kFineChannels];
      const Elem* cells = whole_cells(z, inside - cell, L, own);
      for (int piece = 0; piece < 3 * kFactor; piece += 2) {
        Reg v[2][kFactor];
        for (int i = 0; i < kFactor; ++i) V::pieces(cells + i * kFineChannels + piece * kFactor, kFactor, v[0][i], v[1][i]);
        for (int half = 0; half < 2; ++half) {
          V::turn(v[half]);
          float* to = out[(piece + half) / 3][(piece + half) % 3] + cell;
          for (int b = 0; b < kFactor; ++b) V::store(to + b * step, v[half][b]);
        }
      }
    }
  }

  // Columns [begin, begin + count) of a strip, in order.
  static void unsort(const Part& part, int64_t begin, int64_t count, const float (*sum)[kStrip], float (*line)[kStrip]) {
    const int64_t step = pitch(part.to - part.from);
    for (int c = 0; c < 3; ++c) {
      for (int64_t i = 0; i < count; ++i) line[c][i] = sum[c][at(begin + i, step)];
    }
  }

  // As V::sums, of a lane that has its fine columns in `line`.
  static Reg dot(const Reg* taps, const Reg* line) {
    static_assert(kTaps == 8, "two halves of a pixel");
    Reg v[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) v[k] = V::fma(taps[k + 4], line[k + 4], V::mul(taps[k], line[k]));
    return V::add(V::add(v[0], v[1]), V::add(v[2], v[3]));
  }

  // store(j, rgb): rgb[d][c] is channel c of output columns j + d, j + kFactor + d, ..., as many as V has lanes. Some of the last
  // are stored twice, as there are not always whole vectors of them, but always one.
  template <class Store>
  static void columns(const ResampleParams& p, const Part& part, Run even, const float (*sum)[kStrip], Store&& store) {
    constexpr int kLines = kTaps + kFactor - 1;
    Reg taps[kTaps];
    for (int k = 0; k < kTaps; ++k) taps[k] = V::set1(p.x.taps[even.begin * kTaps + k]);
    int64_t from[kLines];
    for (int k = 0; k < kLines; ++k) from[k] = at(p.x.first[even.begin] - part.fine() + k, pitch(part.to - part.from));
    const int64_t cells = (even.end - even.begin) / kFactor;
    for (int64_t next = 0; next < cells; next += L) {
      const int64_t cell = next < cells - L ? next : cells - L;
      Reg rgb[kFactor][3];
      for (int c = 0; c < 3; ++c) {
        Reg line[kLines];
#pragma GCC unroll 11
        for (int k = 0; k < kLines; ++k) line[k] = V::load(sum[c] + from[k] + cell);
#pragma GCC unroll 4
        for (int d = 0; d < kFactor; ++d) rgb[d][c] = dot(taps, line + d);
      }
      store(even.begin + cell * kFactor, rgb);
    }
  }
};

}  // namespace
}  // namespace liif

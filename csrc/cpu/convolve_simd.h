// The convolution once, over the types of product_simd.h: a register block of neighbouring pixels and some outputs. The channels
// of the pixels of one row of the kernel lie side by side, so that a block is a matrix product whose rows overlap.
#pragma once

#include "isa.h"

namespace liif {
namespace {

// R pixels from column x on, N vectors of outputs from `column` on.
template <class T, int R, int N>
inline __attribute__((always_inline)) void convolve_block(const ConvolveParams& p, int64_t y, int64_t x, int column) {
  using V = typename T::V;
  using Elem = typename T::Elem;
  constexpr int L = V::kLanes, P = T::kPerWord;
  // Few enough addresses for the registers: every third pixel, and twice a step from there.
  constexpr int kGroups = (R + 2) / 3;
  const int inputs = p.kernel * p.kernel * p.in + (p.skip ? kSkip : 0);
  const int64_t panel = static_cast<int64_t>(inputs) * kPanel;
  const Elem* w = static_cast<const Elem*>(p.weight) + static_cast<int64_t>(column) * inputs;
  typename V::Reg acc[R][N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) acc[r][n] = V::load(p.bias + column + n * L);
  }
  const int runs = p.kernel + (p.skip ? 1 : 0);
  for (int run = 0; run < runs; ++run) {
    const bool skips = run == p.kernel;
    const int64_t step = skips ? kSkip : p.in;
    const int length = skips ? kSkip : p.kernel * p.in;
    const Elem* from = static_cast<const Elem*>(skips ? p.skip : p.input) + x * step;
    from += skips ? y * p.skip_row_stride : (y + run - p.kernel / 2) * p.input_row_stride - p.kernel / 2 * step;
    const Elem* group[kGroups];
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) group[g] = from + 3 * g * step;
    for (int k = 0; k < length; k += P, w += P * kPanel) {
      typename T::Weights b[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) b[n] = T::weights(w + n * L / kPanel * panel + n * L % kPanel * P);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const typename T::Word v = T::word(group[r / 3] + r % 3 * step);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) acc[r][n] = T::mac(acc[r][n], v, b[n]);
      }
#pragma GCC unroll 8
      for (int g = 0; g < kGroups; ++g) group[g] += P;
    }
  }
  const int64_t at = y * p.output_row_stride + x * p.out + column;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      const int64_t i = at + static_cast<int64_t>(r) * p.out + n * L;
      typename V::Reg v = acc[r][n];
      if (p.add) v = V::add(v, T::load(static_cast<const Elem*>(p.add) + i));
      T::store(static_cast<Elem*>(p.output) + i, p.relu ? V::relu(v) : v);
    }
  }
}

template <class T, int R, int N>
__attribute__((noinline)) void convolve_outputs(const ConvolveParams& p, int64_t y, int column) {
  int64_t x = 0;
  for (; x + R <= p.grid.columns; x += R) convolve_block<T, R, N>(p, y, x, column);
  for (; x < p.grid.columns; ++x) convolve_block<T, 1, N>(p, y, x, column);
}

// Rows [begin, end). About as many sums as there are registers, whatever the number of outputs.
template <class T>
void convolve_rows(const ConvolveParams& p, int64_t begin, int64_t end) {
  constexpr int L = T::V::kLanes, kSums = T::kRows * T::kVectors;
  for (int64_t y = begin; y < end; ++y) {
    int column = 0;
    for (; column + T::kVectors * L <= p.out; column += T::kVectors * L) {
      convolve_outputs<T, T::kRows, T::kVectors>(p, y, column);
    }
    if constexpr (T::kVectors * L > kPanel) {
      const int left = (p.out - column) / L;
      if (left == 3) convolve_outputs<T, kSums / 3, 3>(p, y, column);
      if (left == 2) convolve_outputs<T, kSums / 2, 2>(p, y, column);
      if (left == 1) convolve_outputs<T, kSums / 2, 1>(p, y, column);
    }
  }
}

}  // namespace
}  // namespace liif

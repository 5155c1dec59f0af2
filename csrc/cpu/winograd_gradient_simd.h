// The gradient of the weights of winograd_simd.h: of each of the 36 places the inputs times the outputs' gradient, summed over
// all tiles.
#pragma once

#include "winograd_simd.h"

namespace liif {
namespace {

// The gradient of the 36 places, tiles [tile, tile + count) of the outputs' gradient.
template <class T, class S>
void winograd_output_gradient(const ConvolveGradientParams& p, int64_t tile, int count, float* to) {
  using Elem = typename S::Elem;
  const int64_t stride = p.grid.columns * p.out;
  WinogradTile at(p.grid, tile);
  for (int t = 0; t < count; ++t, at.move(1)) {
    float* points = to + winograd_tile(p.out, t);
    const Elem* image = static_cast<const Elem*>(p.output) + at.y * stride + at.x * p.out;
    const int64_t rows = at.bottom - at.y, columns = p.grid.columns - at.x;
    if (rows >= 4 && columns >= 4) {
      winograd_points<T, S, 4>(image, stride, p.out, 1, points);
      continue;
    }
    Elem edge[16 * kMaxWidth] = {};
    for (int64_t j = 0; j < 4 && j < rows; ++j) {
      for (int64_t i = 0; i < 4 && i < columns; ++i) {
        for (int c = 0; c < p.out; ++c) edge[(4 * j + i) * p.out + c] = image[j * stride + i * p.out + c];
      }
    }
    winograd_points<T, S, 4>(edge, 4 * p.out, p.out, 1, points);
  }
}

// Adds [panel of inputs, tiles] x [tiles, panel of outputs] to `sum`, R inputs at a time.
template <class V>
inline void winograd_outer(const ConvolveGradientParams& p, int row, int column, int count, const float* in, const float* out,
                           float* sum) {
  constexpr int L = V::kLanes, N = kPanel / L, R = (L == 8 ? 8 : 16) / N;  // AVX2 has half of the others' registers
  for (int k = 0; k < kPanel; k += R, sum += R * kPanel) {
    typename V::Reg acc[R][N];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) acc[r][n] = V::load(sum + r * kPanel + n * L);
    }
    for (int t = 0; t < count; t += kWinogradRun) {
      const float *a = in + winograd_tile(p.in, t) + winograd_at(row + k),
                  *b = out + winograd_tile(p.out, t) + winograd_at(column);
      for (int i = static_cast<int>(least(kWinogradRun, count - t)); i > 0; --i, a += kPanel, b += kPanel) {
        typename V::Reg v[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) v[n] = V::load(b + n * L);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const typename V::Reg w = V::set1(a[r]);
#pragma GCC unroll 4
          for (int n = 0; n < N; ++n) acc[r][n] = V::fma(w, v[n], acc[r][n]);
        }
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) V::store(sum + r * kPanel + n * L, acc[r][n]);
    }
  }
}

// Adds what tiles [begin, end) give to `sum`, of the layout of an f32 `ConvolveParams::winograd`.
template <class T, class S>
void winograd_gradient(const ConvolveGradientParams& p, int64_t begin, int64_t end, const WinogradScratch& scratch, float* sum) {
  for (int64_t tile = begin; tile < end; tile += kWinogradTiles) {
    const int count = static_cast<int>(least(kWinogradTiles, end - tile));
    winograd_input<T, S>(p.grid, static_cast<const typename S::Elem*>(p.input), p.grid.columns * p.in, p.in, tile, count,
                         scratch.in);
    winograd_output_gradient<T, S>(p, tile, count, scratch.out);
    float* to = sum;
    for (int place = 0; place < 36; ++place) {
      const float *in = scratch.in + place * kWinogradPlace, *out = scratch.out + place * kWinogradPlace;
      for (int column = 0; column < p.out; column += kPanel) {
        for (int row = 0; row < p.in; row += kPanel, to += kPanel * kPanel) {
          winograd_outer<typename T::V>(p, row, column, count, in, out, to);
        }
      }
    }
  }
}

}  // namespace
}  // namespace liif

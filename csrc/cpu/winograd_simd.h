// The 3x3 convolution by F(2x2, 3x3) (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016): 16 products
// where there were 36, for two by two outputs. Only sums and differences besides, so that it rounds no worse; f32 alone.
#pragma once

#include "isa.h"
#include "product_simd.h"

namespace liif {
namespace {

// Two rows of tiles [tile, tile + count), as [16][kWinogradTiles][in].
template <class V>
void winograd_input(const ConvolveParams& p, int64_t y, int64_t tile, int count, float* to) {
  constexpr int L = V::kLanes;
  const auto* image = static_cast<const float*>(p.input);
  const int64_t part = static_cast<int64_t>(kWinogradTiles) * p.in;
  for (int t = 0; t < count; ++t, to += p.in) {
    // The lines of outputs that are not there: any will do that can be read.
    const float* at[4][4];
    for (int j = 0; j < 4; ++j) {
      const int64_t row = y + j - 1 < p.rows ? y + j - 1 : p.rows;
      for (int i = 0; i < 4; ++i) {
        const int64_t column = 2 * (tile + t) + i - 1 < p.columns ? 2 * (tile + t) + i - 1 : p.columns;
        at[j][i] = image + row * p.input_row_stride + column * p.in;
      }
    }
    for (int c = 0; c < p.in; c += L) {
      typename V::Reg half[4][4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const typename V::Reg a = V::load(at[0][i] + c), b = V::load(at[1][i] + c);
        const typename V::Reg d = V::load(at[2][i] + c), e = V::load(at[3][i] + c);
        half[0][i] = V::sub(a, d), half[1][i] = V::add(b, d), half[2][i] = V::sub(d, b), half[3][i] = V::sub(b, e);
      }
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        float* out = to + 4 * j * part + c;
        V::store(out, V::sub(half[j][0], half[j][2]));
        V::store(out + part, V::add(half[j][1], half[j][2]));
        V::store(out + 2 * part, V::sub(half[j][2], half[j][1]));
        V::store(out + 3 * part, V::sub(half[j][1], half[j][3]));
      }
    }
  }
}

// One output pixel: bias, the image, ReLU, addition.
template <class V>
inline void winograd_store(const ConvolveParams& p, int64_t y, int64_t x, int c, typename V::Reg v) {
  v = V::add(v, V::load(p.bias + c));
  if (p.skip) {
    const float* skip = static_cast<const float*>(p.skip) + y * p.skip_row_stride + x * kSkip;
    for (int k = 0; k < kSkip; ++k) v = V::fma(V::set1(skip[k]), V::load(p.winograd_skip + k * p.out + c), v);
  }
  if (p.relu) v = V::relu(v);
  const int64_t i = y * p.output_row_stride + x * p.out + c;
  if (p.add) v = V::add(v, V::load(static_cast<const float*>(p.add) + i));
  V::store(static_cast<float*>(p.output) + i, v);
}

template <class V>
void winograd_output(const ConvolveParams& p, int64_t y, int64_t tile, int count, const float* from) {
  constexpr int L = V::kLanes;
  const int64_t part = static_cast<int64_t>(kWinogradTiles) * p.out;
  for (int t = 0; t < count; ++t, from += p.out) {
    const int64_t x = 2 * (tile + t);
    for (int c = 0; c < p.out; c += L) {
      typename V::Reg half[2][4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const float* m = from + i * part + c;
        const typename V::Reg a = V::load(m), b = V::load(m + 4 * part), d = V::load(m + 8 * part), e = V::load(m + 12 * part);
        half[0][i] = V::add(V::add(a, b), d), half[1][i] = V::sub(V::sub(b, d), e);
      }
      for (int j = 0; j < 2 && y + j < p.rows; ++j) {
        winograd_store<V>(p, y + j, x, c, V::add(V::add(half[j][0], half[j][1]), half[j][2]));
        if (x + 1 < p.columns) winograd_store<V>(p, y + j, x + 1, c, V::sub(V::sub(half[j][1], half[j][2]), half[j][3]));
      }
    }
  }
}

// [tiles, in] x [in, out] -> [tiles, out], for each of the 16 places of a tile; tiles rounded up to whole blocks.
template <class T, int N>
void winograd_products(const ConvolveParams& p, int place, int column, int count, const float* in, float* out) {
  using V = typename T::V;
  static constexpr float kNoBias[kPanel * 4] = {};
  const float* w = p.winograd + static_cast<int64_t>(place) * p.in * p.out + static_cast<int64_t>(column) * p.in;
  in += static_cast<int64_t>(place) * kWinogradTiles * p.in;
  out += static_cast<int64_t>(place) * kWinogradTiles * p.out + column;
  for (int t = 0; t < count; t += T::kRows) {
    product_block<T, N>(in + static_cast<int64_t>(t) * p.in, w, kNoBias, p.in,
                        [&](int i, int c, typename V::Reg v) { V::store(out + static_cast<int64_t>(t + i) * p.out + c, v); });
  }
}

// Rows [begin, end); `begin` is even.
template <class T>
void winograd_rows(const ConvolveParams& p, int64_t begin, int64_t end, WinogradScratch& scratch) {
  using V = typename T::V;
  constexpr int L = V::kLanes, N = T::kVectors;
  static_assert(kWinogradTiles % T::kRows == 0, "a full strip is whole blocks");
  const int64_t tiles = (p.columns + 1) / 2;
  for (int64_t y = begin; y < end; y += 2) {
    for (int64_t tile = 0; tile < tiles; tile += kWinogradTiles) {
      const int count = static_cast<int>(tiles - tile < kWinogradTiles ? tiles - tile : kWinogradTiles);
      winograd_input<V>(p, y, tile, count, scratch.in);
      for (int place = 0; place < 16; ++place) {
        int column = 0;
        for (; column + N * L <= p.out; column += N * L) {
          winograd_products<T, N>(p, place, column, count, scratch.in, scratch.out);
        }
        if constexpr (N > 2) {
          for (; column + 2 * L <= p.out; column += 2 * L) {
            winograd_products<T, 2>(p, place, column, count, scratch.in, scratch.out);
          }
          for (; column < p.out; column += L) winograd_products<T, 1>(p, place, column, count, scratch.in, scratch.out);
        }
      }
      winograd_output<V>(p, y, tile, count, scratch.out);
    }
  }
}

}  // namespace
}  // namespace liif

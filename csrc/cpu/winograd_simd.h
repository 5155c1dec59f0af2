// The 3x3 convolution by F(4x4, 3x3) (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016): 36 products
// where there were 144, for four by four outputs. Pictures are of `S` (F32, Bf16 or Bf16Pairs), the products of `T` (F32 or
// Bf16Pairs); all sums are f32. The points are 0, +-a, +-b and infinity with a = 1/sqrt(2) and b = sqrt(2), of which the products
// stay closer in size than with the usual 1 and 2, and round less.
#pragma once

#include "isa.h"
#include "product_simd.h"

namespace liif {
namespace {

constexpr float kA = 0.70710678118654752f, kB = 1.41421356237309505f, kA3 = kA / 2, kB3 = kB * 2;

// One line of a tile: six inputs to the six points.
template <class V>
inline void points_of_inputs(const typename V::Reg d[6], typename V::Reg to[6]) {
  using Reg = typename V::Reg;
  const Reg a = V::set1(kA), b = V::set1(kB), minus_a = V::set1(-kA), minus_b = V::set1(-kB);
  const Reg both = V::set1(-2.5f), two = V::set1(-2.0f), half = V::set1(-0.5f);
  to[0] = V::fma(both, d[2], V::add(d[0], d[4]));
  const Reg even_a = V::fma(two, d[2], d[4]), odd_a = V::fma(two, d[1], d[3]);
  to[1] = V::fma(a, odd_a, even_a), to[2] = V::fma(minus_a, odd_a, even_a);
  const Reg even_b = V::fma(half, d[2], d[4]), odd_b = V::fma(half, d[1], d[3]);
  to[3] = V::fma(b, odd_b, even_b), to[4] = V::fma(minus_b, odd_b, even_b);
  to[5] = V::fma(both, d[3], V::add(d[1], d[5]));
}

// One line of products: six points to four outputs.
template <class V>
inline void outputs_of_points(const typename V::Reg m[6], typename V::Reg to[4]) {
  using Reg = typename V::Reg;
  const Reg even_a = V::add(m[1], m[2]), odd_a = V::sub(m[1], m[2]), even_b = V::add(m[3], m[4]), odd_b = V::sub(m[3], m[4]);
  to[0] = V::add(m[0], V::add(even_a, even_b));
  to[1] = V::fma(V::set1(kA), odd_a, V::mul(V::set1(kB), odd_b));
  to[2] = V::fma(V::set1(0.5f), even_a, V::add(even_b, even_b));
  to[3] = V::fma(V::set1(kA3), odd_a, V::fma(V::set1(kB3), odd_b, m[5]));
}

// Its transpose: four gradients of outputs to those of the six points.
template <class V>
inline void points_of_outputs(const typename V::Reg y[4], typename V::Reg to[6]) {
  using Reg = typename V::Reg;
  const Reg even_a = V::fma(V::set1(0.5f), y[2], y[0]), odd_a = V::fma(V::set1(kA3), y[3], V::mul(V::set1(kA), y[1]));
  const Reg even_b = V::add(y[0], V::add(y[2], y[2])), odd_b = V::fma(V::set1(kB3), y[3], V::mul(V::set1(kB), y[1]));
  to[0] = y[0];
  to[1] = V::add(even_a, odd_a), to[2] = V::sub(even_a, odd_a);
  to[3] = V::add(even_b, odd_b), to[4] = V::sub(even_b, odd_b);
  to[5] = y[3];
}

// Where a tile lies: its first output, and where its picture begins and ends.
struct WinogradTile {
  int64_t y, x, top, bottom;
  WinogradTile(const PixelGrid& g, int64_t tile) {
    const int64_t line = tile / tiles_across(g), height = g.picture_rows ? g.picture_rows : g.rows;
    top = line / tiles_down(g) * height, bottom = top + height;
    y = top + line % tiles_down(g) * 4, x = tile % tiles_across(g) * 4;
  }
};

inline int64_t winograd_part(int channels) { return winograd_size(channels) / 36; }

// Tiles of N by N pixels, which are inputs or gradients of outputs, each four columns further than the one before, at the six
// points of both axes, `part` elements apart.
template <class T, class S, int N>
inline void winograd_points(const typename S::Elem* pixel, int64_t stride, int channels, int tiles, int64_t part,
                            typename T::Elem* to) {
  using Reg = typename T::V::Reg;
  const auto points = [](const Reg(&line)[N], Reg m[6]) {
    if constexpr (N == 6) {
      points_of_inputs<typename T::V>(line, m);
    } else {
      points_of_outputs<typename T::V>(line, m);
    }
  };
  for (int c = 0; c < channels; c += T::V::kLanes) {
    // Half of the points at a time, as many as there are registers for.
#pragma GCC unroll 2
    for (int first = 0; first < 6; first += 3) {
      Reg half[3][N];
      const typename S::Elem* row[N];
#pragma GCC unroll 6
      for (int j = 0; j < N; ++j) row[j] = pixel + j * stride + c;
      const auto next = [&](int column) __attribute__((always_inline)) {
        Reg line[N], m[6];
#pragma GCC unroll 6
        for (int j = 0; j < N; ++j) {
          line[j] = S::load(row[j]);
          row[j] += channels;
        }
        points(line, m);
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) half[j][column] = m[first + j];
      };
#pragma GCC unroll 2
      for (int i = 0; i < N - 4; ++i) next(i);
      typename T::Elem* tile = to + c;
      for (int t = 0; t < tiles; ++t, tile += channels) {
#pragma GCC unroll 4
        for (int i = N - 4; i < N; ++i) next(i);
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) {
          Reg m[6];
          points(half[j], m);
#pragma GCC unroll 6
          for (int i = 0; i < 6; ++i) T::store(tile + (6 * (first + j) + i) * part, m[i]);
          // What the next tile has in common with this one.
#pragma GCC unroll 2
          for (int i = 0; i < N - 4; ++i) half[j][i] = half[j][i + 4];
        }
      }
    }
  }
}

// Tiles [tile, tile + count) of the input as [36][kWinogradTiles][in], with a pad after each of the 36.
template <class T, class S>
void winograd_input(const PixelGrid& g, const typename S::Elem* image, int64_t stride, int in, int64_t tile, int count,
                    typename T::Elem* to) {
  using Elem = typename S::Elem;
  const int64_t part = winograd_part(in);
  // Neighbours together where that does not part the lines of memory of a pixel.
  const int most = in * sizeof(Elem) <= 64 ? 4 : 1;
  for (int run = 1; count > 0; tile += run, count -= run, to += run * in) {
    const WinogradTile at(g, tile);
    const int64_t y = at.y - 1, x = at.x - 1;
    // Where what can be read ends: below and on the right, a pixel beyond the border of a single picture.
    const int64_t bottom = g.picture_rows ? at.bottom : g.rows + 1, right = g.columns + (g.picture_rows ? 0 : 1);
    const int64_t top = g.picture_rows ? at.top : -1, left = g.picture_rows ? 0 : -1;
    run = static_cast<int>((right - x - 2) / 4 < most ? (right - x - 2) / 4 : most);
    run = run < count ? run : count;
    if (run > 0 && y >= top && y + 6 <= bottom && x >= left) {
      winograd_points<T, S, 6>(image + y * stride + x * in, stride, in, run, part, to);
      continue;
    }
    run = 1;
    Elem edge[36 * kMaxWidth];  // zeros where nothing can be read
    Elem* copy = edge;
    for (int64_t row = y; row < y + 6; ++row) {
      for (int64_t column = x; column < x + 6; ++column, copy += in) {
        const bool inside = row >= top && row < bottom && column >= left && column < right;
        for (int c = 0; c < in; ++c) copy[c] = inside ? image[row * stride + column * in + c] : Elem{0};
      }
    }
    winograd_points<T, S, 6>(edge, 6 * in, in, 1, part, to);
  }
}

// Outputs: bias, the image where there is one, addition, ReLU.
template <class S, bool kSkips>
void winograd_output(const ConvolveParams& p, int64_t tile, int count, const float* from) {
  using V = typename S::V;
  using Reg = typename V::Reg;
  using Elem = typename S::Elem;
  const int64_t part = winograd_part(p.out), out = p.out, stride = p.output_row_stride;
  const bool relu = p.relu;
  for (int t = 0; t < count; ++t, from += out) {
    const WinogradTile at(p.grid, tile + t);
    const int64_t first = at.y * stride + at.x * out, rows = at.bottom - at.y, columns = p.grid.columns - at.x;
    float skip[4][4][kSkip] = {};
    if constexpr (kSkips) {
      for (int j = 0; j < 4 && j < rows; ++j) {
        const Elem* pixel = static_cast<const Elem*>(p.skip) + (at.y + j) * p.skip_row_stride + at.x * kSkip;
        for (int i = 0; i < 4 && i < columns; ++i) {
          for (int k = 0; k < kSkip; ++k) skip[j][i][k] = S::value(*pixel++);
        }
      }
    }
    for (int64_t c = 0; c < out; c += V::kLanes) {
      Reg half[4][6];
#pragma GCC unroll 6
      for (int i = 0; i < 6; ++i) {
        Reg m[6], y[4];
#pragma GCC unroll 6
        for (int j = 0; j < 6; ++j) m[j] = V::load(from + c + (6 * j + i) * part);
        outputs_of_points<V>(m, y);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) half[j][i] = y[j];
      }
      const Reg bias = V::load(p.bias + c);
      Reg by[kSkip];
      if constexpr (kSkips) {
#pragma GCC unroll 4
        for (int k = 0; k < kSkip; ++k) by[k] = V::load(p.winograd_skip + k * out + c);
      }
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        if (j >= rows) break;
        const int64_t line = first + j * stride + c;
        Reg y[4];
        outputs_of_points<V>(half[j], y);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          if (i >= columns) break;
          Reg v = V::add(y[i], bias);
          if constexpr (kSkips) {
#pragma GCC unroll 4
            for (int k = 0; k < kSkip; ++k) v = V::fma(V::set1(skip[j][i][k]), by[k], v);
          }
          if (p.add) v = V::add(v, S::load(static_cast<const Elem*>(p.add) + line + i * out));
          if (relu) v = V::relu(v);
          S::store(static_cast<Elem*>(p.output) + line + i * out, v);
        }
      }
    }
  }
}

// [tiles, in] x [in, out] -> [tiles, out], for each of the 36 places of a tile; tiles rounded up to whole blocks.
template <class T, int N>
void winograd_products(const ConvolveParams& p, int place, int column, int count, const typename T::Elem* in, float* out) {
  using V = typename T::V;
  static constexpr float kNoBias[kPanel * 4] = {};
  const auto* w = static_cast<const typename T::Elem*>(p.winograd) + (int64_t{place} * p.out + column) * p.in;
  in += place * winograd_part(p.in);
  out += place * winograd_part(p.out) + column;
  for (int t = 0; t < count; t += T::kRows) {
    product_block<T, N>(in + static_cast<int64_t>(t) * p.in, w, kNoBias, p.in,
                        [&](int i, int c, typename V::Reg v) { V::store(out + static_cast<int64_t>(t + i) * p.out + c, v); });
  }
}

// Tiles [begin, end).
template <class T, class S>
void winograd_tiles(const ConvolveParams& p, int64_t begin, int64_t end, const WinogradScratch& scratch) {
  using V = typename T::V;
  constexpr int L = V::kLanes, N = T::kVectors;
  auto* in = reinterpret_cast<typename T::Elem*>(scratch.in);
  static_assert(kWinogradTiles % T::kRows == 0, "a full strip is whole blocks");
  for (int64_t tile = begin; tile < end; tile += kWinogradTiles) {
    const int count = static_cast<int>(end - tile < kWinogradTiles ? end - tile : kWinogradTiles);
    winograd_input<T, S>(p.grid, static_cast<const typename S::Elem*>(p.input), p.input_row_stride, p.in, tile, count, in);
    for (int place = 0; place < 36; ++place) {
      int column = 0;
      for (; column + N * L <= p.out; column += N * L) {
        winograd_products<T, N>(p, place, column, count, in, scratch.out);
      }
      if constexpr (N * L > kPanel) {
        for (; column + 2 * L <= p.out; column += 2 * L) {
          winograd_products<T, 2>(p, place, column, count, in, scratch.out);
        }
        for (; column < p.out; column += L) winograd_products<T, 1>(p, place, column, count, in, scratch.out);
      }
    }
    p.skip ? winograd_output<S, true>(p, tile, count, scratch.out) : winograd_output<S, false>(p, tile, count, scratch.out);
  }
}

// The gradient of the 36 places, tiles [tile, tile + count) of the outputs' gradient, as [36][kWinogradTiles][out].
template <class T>
void winograd_output_gradient(const ConvolveGradientParams& p, int64_t tile, int count, float* to) {
  const int64_t part = winograd_part(p.out), stride = p.grid.columns * p.out;
  for (int t = 0; t < count; ++t, to += p.out) {
    const WinogradTile at(p.grid, tile + t);
    const float* image = p.output + at.y * stride + at.x * p.out;
    const int64_t rows = at.bottom - at.y, columns = p.grid.columns - at.x;
    if (rows >= 4 && columns >= 4) {
      winograd_points<T, T, 4>(image, stride, p.out, 1, part, to);
      continue;
    }
    float edge[16 * kMaxWidth] = {};
    for (int64_t j = 0; j < 4 && j < rows; ++j) {
      for (int64_t i = 0; i < 4 && i < columns; ++i) {
        for (int c = 0; c < p.out; ++c) edge[(4 * j + i) * p.out + c] = image[j * stride + i * p.out + c];
      }
    }
    winograd_points<T, T, 4>(edge, 4 * p.out, p.out, 1, part, to);
  }
}

// Adds [in, tiles] x [tiles, panel of outputs] to `sum`, R inputs at a time.
template <class V>
inline void winograd_outer(const float* in, int inputs, const float* out, int outputs, int count, float* sum) {
  constexpr int L = V::kLanes, N = kPanel / L, R = (L == 4 ? 16 : 8) / N;  // NEON has twice AVX2's registers
  for (int row = 0; row < inputs; row += R, sum += R * kPanel) {
    typename V::Reg acc[R][N];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) acc[r][n] = V::load(sum + r * kPanel + n * L);
    }
    const float *a = in + row, *b = out;
    for (int t = 0; t < count; ++t, a += inputs, b += outputs) {
      typename V::Reg v[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) v[n] = V::load(b + n * L);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const typename V::Reg w = V::set1(a[r]);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) acc[r][n] = V::fma(w, v[n], acc[r][n]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) V::store(sum + r * kPanel + n * L, acc[r][n]);
    }
  }
}

// Adds what tiles [begin, end) give to `sum`, of the layout of an f32 `ConvolveParams::winograd`.
template <class T>
void winograd_gradient(const ConvolveGradientParams& p, int64_t begin, int64_t end, const WinogradScratch& scratch, float* sum) {
  for (int64_t tile = begin; tile < end; tile += kWinogradTiles) {
    const int count = static_cast<int>(end - tile < kWinogradTiles ? end - tile : kWinogradTiles);
    winograd_input<T, T>(p.grid, p.input, p.grid.columns * p.in, p.in, tile, count, scratch.in);
    winograd_output_gradient<T>(p, tile, count, scratch.out);
    float* to = sum;
    for (int place = 0; place < 36; ++place) {
      const float *in = scratch.in + place * winograd_part(p.in), *out = scratch.out + place * winograd_part(p.out);
      for (int column = 0; column < p.out; column += kPanel, to += static_cast<int64_t>(p.in) * kPanel) {
        winograd_outer<typename T::V>(in, p.in, out + column, p.out, count, to);
      }
    }
  }
}

}  // namespace
}  // namespace liif

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

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Where a tile lies: its first output, and where its picture begins and ends.
struct WinogradTile {
  const PixelGrid& grid;
  const int64_t height;
  int64_t y, x, top, bottom;
  WinogradTile(const PixelGrid& g, int64_t tile) : grid(g), height(g.picture_rows ? g.picture_rows : g.rows) {
    const int64_t line = tile / tiles_across(g);
    top = line / tiles_down(g) * height, bottom = top + height;
    y = top + line % tiles_down(g) * 4, x = tile % tiles_across(g) * 4;
  }
  // To one further on, of the same line or the first of the next.
  void move(int tiles) {
    x += 4 * tiles;
    if (x < grid.columns) return;
    x = 0, y += 4;
    if (y >= bottom) y = top = bottom, bottom += height;
  }
};

// Where at the first of the 36 places a channel of a run's first tile lies, which after the last is the next run; and a tile.
inline int64_t winograd_at(int channel) { return int64_t{channel / kPanel} * 36 * kWinogradPlace + channel % kPanel; }
inline int64_t winograd_tile(int channels, int tile) {
  return tile / kWinogradRun * winograd_at(channels) + tile % kWinogradRun * kPanel;
}

// Tiles of N by N pixels, which are inputs or gradients of outputs, each four columns further than the one before, at the six
// points of both axes.
template <class T, class S, int N>
inline void winograd_points(const typename S::Elem* pixel, int64_t stride, int channels, int tiles, typename T::Elem* to) {
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
#pragma GCC unroll 4
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
#pragma GCC unroll 4
      for (int i = 0; i < N - 4; ++i) next(i);
      typename T::Elem* tile = to + winograd_at(c);
      for (int t = 0; t < tiles; ++t, tile += kPanel) {
#pragma GCC unroll 4
        for (int i = N - 4; i < N; ++i) next(i);
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) {
          Reg m[6];
          points(half[j], m);
#pragma GCC unroll 6
          for (int i = 0; i < 6; ++i) T::store(tile + (6 * (first + j) + i) * kWinogradPlace, m[i]);
          // What the next tile has in common with this one.
#pragma GCC unroll 4
          for (int i = 0; i < N - 4; ++i) half[j][i] = half[j][i + 4];
        }
      }
    }
  }
}

// Tiles [tile, tile + count) of the input.
template <class T, class S>
void winograd_input(const PixelGrid& g, const typename S::Elem* image, int64_t stride, int in, int64_t tile, int count,
                    typename T::Elem* to) {
  using Elem = typename S::Elem;
  // Neighbours together where that does not part the lines of memory of a pixel.
  const int together = in * sizeof(Elem) <= 64 ? 4 : 1;
  WinogradTile at(g, tile);
  for (int t = 0, run; t < count; t += run, at.move(run)) {
    const int64_t y = at.y - 1, x = at.x - 1;
    // Where what can be read ends: below and on the right, a pixel beyond the border of a single picture.
    const int64_t bottom = g.picture_rows ? at.bottom : g.rows + 1, right = g.columns + (g.picture_rows ? 0 : 1);
    const int64_t top = g.picture_rows ? at.top : -1, left = g.picture_rows ? 0 : -1;
    run = static_cast<int>(least(least(together, kWinogradRun - t % kWinogradRun), least(count - t, (right - x - 2) / 4)));
    typename T::Elem* tiles = to + winograd_tile(in, t);
    if (run > 0 && y >= top && y + 6 <= bottom && x >= left) {
      winograd_points<T, S, 6>(image + y * stride + x * in, stride, in, run, tiles);
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
    winograd_points<T, S, 6>(edge, 6 * in, in, 1, tiles);
  }
}

// The outputs of a tile: bias, the image where there is one, addition, ReLU. `kWhole`: all sixteen are of the picture.
template <class S, bool kSkips, bool kAdds, bool kWhole>
inline void winograd_output_tile(const ConvolveParams& p, const WinogradTile& at, const float* from) {
  using V = typename S::V;
  using Reg = typename V::Reg;
  using Elem = typename S::Elem;
  const int64_t out = p.out, stride = p.output_row_stride, first = at.y * stride + at.x * out;
  const int64_t rows = at.bottom - at.y, columns = p.grid.columns - at.x;
  const Elem* add = nullptr;
  if constexpr (kAdds) add = static_cast<const Elem*>(p.add) + first;
  auto* output = static_cast<Elem*>(p.output) + first;
  const float* bias_of = p.bias;
  const bool relu = p.relu;
  float skip[4][4][kSkip] = {};
  if constexpr (kSkips) {
    for (int j = 0; j < 4 && j < rows; ++j) {
      const Elem* pixel = static_cast<const Elem*>(p.skip) + (at.y + j) * p.skip_row_stride + at.x * kSkip;
      for (int i = 0; i < 4 && i < columns; ++i) {
        for (int k = 0; k < kSkip; ++k) skip[j][i][k] = S::value(*pixel++);
      }
    }
  }
  for (int c = 0; c < p.out; c += V::kLanes) {
    const float* place = from + winograd_at(c);
    Reg half[4][6];
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
      Reg m[6], y[4];
#pragma GCC unroll 6
      for (int j = 0; j < 6; ++j) m[j] = V::load(place + (6 * j + i) * kWinogradPlace);
      outputs_of_points<V>(m, y);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) half[j][i] = y[j];
    }
    const Reg bias = V::load(bias_of + c);
    Reg by[kSkip];
    if constexpr (kSkips) {
#pragma GCC unroll 4
      for (int k = 0; k < kSkip; ++k) by[k] = V::load(p.winograd_skip + k * out + c);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      if (!kWhole && j >= rows) break;
      Reg y[4];
      outputs_of_points<V>(half[j], y);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        if (!kWhole && i >= columns) break;
        const int64_t pixel = j * stride + i * out + c;
        Reg v = V::add(y[i], bias);
        if constexpr (kSkips) {
#pragma GCC unroll 4
          for (int k = 0; k < kSkip; ++k) v = V::fma(V::set1(skip[j][i][k]), by[k], v);
        }
        if constexpr (kAdds) v = V::add(v, S::load(add + pixel));
        if (relu) v = V::relu(v);
        S::store(output + pixel, v);
      }
    }
  }
}

template <class S, bool kSkips, bool kAdds>
void winograd_output(const ConvolveParams& p, int64_t tile, int count, const float* from) {
  WinogradTile at(p.grid, tile);
  for (int t = 0; t < count; ++t, at.move(1)) {
    const float* points = from + winograd_tile(p.out, t);
    if (at.bottom - at.y >= 4 && p.grid.columns - at.x >= 4) {
      winograd_output_tile<S, kSkips, kAdds, true>(p, at, points);
    } else {
      winograd_output_tile<S, kSkips, kAdds, false>(p, at, points);
    }
  }
}

// [tiles, in] x [in, N vectors] -> [tiles, N vectors], outputs from `column` on, for one place of a run; tiles rounded up to
// whole blocks.
template <class T, int N>
void winograd_columns(int inputs, int column, int tiles, const typename T::Elem* in, const typename T::Elem* weight, float* out) {
  using V = typename T::V;
  // As many sums as there are registers for, or half as many, which is enough to keep them busy.
  constexpr int R = N * 2 <= T::kVectors ? T::kRows * 2 : T::kRows, L = V::kLanes, P = T::kPerWord;
  static_assert(kWinogradRun % R == 0, "a run is whole blocks");
  const int64_t panel = int64_t{inputs} * kPanel;
  float* to[N];
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) to[n] = out + winograd_at(column + n * L);
  weight += int64_t{column} * inputs;
  for (int t = 0; t < tiles; t += R) {
    typename V::Reg acc[R][N];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) acc[r][n] = V::set1(0);
    }
    const typename T::Elem *a = in + t * kPanel, *w = weight;
    for (int k = 0; k < inputs; k += kPanel, a += 36 * kWinogradPlace, w += kPanel * kPanel) {
#pragma GCC unroll 4
      for (int i = 0; i < kPanel; i += P) {
        typename T::Weights b[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) b[n] = T::weights(w + n * L / kPanel * panel + i * kPanel + n * L % kPanel * P);
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
          const typename T::Word x = T::word(a + r * kPanel + i);
#pragma GCC unroll 4
          for (int n = 0; n < N; ++n) acc[r][n] = T::mac(acc[r][n], x, b[n]);
        }
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) V::store(to[n] + (t + r) * kPanel, acc[r][n]);
    }
  }
}

// The same for all outputs.
template <class T>
inline void winograd_products(const ConvolveParams& p, int tiles, const typename T::Elem* in, const typename T::Elem* weight,
                              float* out) {
  constexpr int L = T::V::kLanes, N = T::kVectors;
  int column = 0;
  for (; column + N * L <= p.out; column += N * L) winograd_columns<T, N>(p.in, column, tiles, in, weight, out);
  if constexpr (N * L > kPanel) {
    for (; column + 2 * L <= p.out; column += 2 * L) winograd_columns<T, 2>(p.in, column, tiles, in, weight, out);
    for (; column < p.out; column += L) winograd_columns<T, 1>(p.in, column, tiles, in, weight, out);
  }
}

// Tiles [begin, end).
template <class T, class S>
void winograd_tiles(const ConvolveParams& p, int64_t begin, int64_t end, const WinogradScratch& scratch) {
  using Elem = typename T::Elem;
  auto* in = reinterpret_cast<Elem*>(scratch.in);
  // Of few channels no more than the first cache may hold.
  const int most = p.in + p.out > 64 ? kWinogradTiles : kWinogradRun;
  for (int64_t tile = begin; tile < end; tile += most) {
    const int count = static_cast<int>(least(most, end - tile));
    winograd_input<T, S>(p.grid, static_cast<const typename S::Elem*>(p.input), p.input_row_stride, p.in, tile, count, in);
    const auto* weight = static_cast<const Elem*>(p.winograd);
    for (int place = 0; place < 36 * kWinogradPlace; place += kWinogradPlace, weight += int64_t{p.in} * p.out) {
      const Elem* run = in + place;
      float* sums = scratch.out + place;
      for (int t = 0; t < count; t += kWinogradRun, run += winograd_at(p.in), sums += winograd_at(p.out)) {
        winograd_products<T>(p, count - t < kWinogradRun ? count - t : kWinogradRun, run, weight, sums);
      }
    }
    const float* sums = scratch.out;
    if (p.skip) {
      p.add ? winograd_output<S, true, true>(p, tile, count, sums) : winograd_output<S, true, false>(p, tile, count, sums);
    } else {
      p.add ? winograd_output<S, false, true>(p, tile, count, sums) : winograd_output<S, false, false>(p, tile, count, sums);
    }
  }
}

}  // namespace
}  // namespace liif

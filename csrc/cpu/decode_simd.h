// The decoder once, over a vector type. A tile of pixels is three steps: the first layer writes the activations of every
// neighbour of every pixel, each hidden layer is a register-blocked matrix product over all of them, and the last step blends the
// neighbours and applies the last layer.
#pragma once

#include "isa.h"
#include "product_simd.h"

namespace liif {
namespace {

template <class T, int N, class Out>
__attribute__((noinline)) void hidden_columns(const HiddenLayer& layer, int column, int rows, const typename T::Elem* in,
                                              const float* steps, Out* out) {
  using V = typename T::V;
  using Sum = typename Sums<T>::Reg;
  const auto* w = static_cast<const typename T::Elem*>(layer.weight) + static_cast<int64_t>(column) * layer.in;
  for (int r = 0; r < rows; r += T::kRows) {
    Out* to = out + static_cast<int64_t>(r) * layer.out + column;
    product_block<T, N>(in + static_cast<int64_t>(r) * layer.in, w, layer.bias + column, layer.in, [&](int i, int c, Sum sum) {
      T::store(to + static_cast<int64_t>(i) * layer.out + c,
               V::relu(Sums<T>::finish(sum, layer, column + c, steps ? steps[r + i] : 1)));
    });
  }
}

// One hidden layer over `rows` rows, rounded up to whole blocks. Columns outermost: a block of weights stays in the nearest cache
// while every row passes by. `steps`: of int8, each row's.
template <class T, class Out>
void hidden_layer(const HiddenLayer& layer, int rows, const typename T::Elem* in, const float* steps, Out* out) {
  constexpr int L = T::V::kLanes, N = T::kVectors;
  int column = 0;
  for (; column + N * L <= layer.out; column += N * L) hidden_columns<T, N>(layer, column, rows, in, steps, out);
  if constexpr (N * L > kPanel) {
    for (; column + 2 * L <= layer.out; column += 2 * L) hidden_columns<T, 2>(layer, column, rows, in, steps, out);
    for (; column < layer.out; column += L) hidden_columns<T, 1>(layer, column, rows, in, steps, out);
  }
}

// relu(z[cell] + first + first_y * offset_y + first_x * offset_x) for every neighbour of `count` pixels from `at` on.
template <class T, class Out>
void first_layer(const DecodeParams& p, Cursor at, int count, float* row_term, Out* out) {
  using V = typename T::V;
  constexpr int L = V::kLanes;
  const int width = p.width;
  const auto* z = static_cast<const typename T::Elem*>(p.z);
  int64_t row = -1;
  for (int i = 0; i < count; ++i, at.next()) {
    if (at.row != row) {
      row = at.row;
      for (int s = 0; s < p.sides; ++s) {
        const typename V::Reg offset = V::set1(p.y.offset[s * p.y.size + row]);
        for (int c = 0; c < width; c += L) {
          V::store(row_term + s * width + c, V::fma(V::load(p.first_y + c), offset, V::load(p.first + c)));
        }
      }
    }
    for (int sy = 0; sy < p.sides; ++sy) {
      const auto* z_row = z + p.y.index[sy * p.y.size + row] * p.z_row_stride;
      const float* term = row_term + sy * width;
      for (int sx = 0; sx < p.sides; ++sx, out += width) {
        const int64_t x = sx * p.x.size + at.column;
        const auto* cell = z_row + static_cast<int64_t>(p.x.index[x]) * width;
        const typename V::Reg offset = V::set1(p.x.offset[x]);
        for (int c = 0; c < width; c += L) {
          const typename V::Reg terms = V::fma(V::load(p.first_x + c), offset, V::load(term + c));
          T::store(out + c, V::relu(V::add(T::load(cell + c), terms)));
        }
      }
    }
  }
}

// The paper's local ensemble (eq. 4) and the last layer, in f32.
template <class V, int kSides>
void blended_layer(const DecodeParams& p, Cursor at, int count, int width, const float* h) {
  constexpr int L = V::kLanes, S = kSides * kSides;
  for (int i = 0; i < count; ++i, at.next(), h += static_cast<int64_t>(S) * width) {
    typename V::Reg weight[S];
    for (int s = 0; s < S; ++s) {
      weight[s] = V::set1(p.y.weight[s / kSides * p.y.size + at.row] * p.x.weight[s % kSides * p.x.size + at.column]);
    }
    typename V::Reg sum[3] = {V::set1(0), V::set1(0), V::set1(0)};
    for (int c = 0; c < width; c += L) {
      typename V::Reg v = V::set1(0);
      for (int s = 0; s < S; ++s) v = V::fma(weight[s], V::load(h + static_cast<int64_t>(s) * width + c), v);
      for (int o = 0; o < 3; ++o) sum[o] = V::fma(v, V::load(p.last + o * width + c), sum[o]);
    }
    const float rgb[3] = {V::sum(sum[0]), V::sum(sum[1]), V::sum(sum[2])};
    store_pixel(p, at.row, at.column, rgb);
  }
}

template <class V>
void last_layer(const DecodeParams& p, Cursor at, int count, int width, const float* h) {
  p.sides == 2 ? blended_layer<V, 2>(p, at, count, width, h) : blended_layer<V, 1>(p, at, count, width, h);
}

template <class T>
void decode_tiles(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  using Elem = typename T::Elem;
  static_assert(kTileRows % T::kRows == 0, "a full tile is whole blocks");
  for (int64_t pixel = begin; pixel < end; pixel += kTilePixels) {
    const int count = static_cast<int>(end - pixel < kTilePixels ? end - pixel : kTilePixels);
    const int rows = count * p.sides * p.sides;
    const Cursor at(p, pixel);
    float *in = scratch.a, *out = scratch.b;  // activations; of type Elem but for the last, which are f32
    int width = p.width;
    if (p.hidden_count == 0) {
      first_layer<T>(p, at, count, scratch.row_term, in);
    } else {
      first_layer<T>(p, at, count, scratch.row_term, reinterpret_cast<Elem*>(in));
    }
    for (int l = 0; l < p.hidden_count; ++l) {
      const auto* from = reinterpret_cast<const Elem*>(in);
      if (l + 1 == p.hidden_count) {
        hidden_layer<T>(p.hidden[l], rows, from, nullptr, out);
      } else {
        hidden_layer<T>(p.hidden[l], rows, from, nullptr, reinterpret_cast<Elem*>(out));
      }
      width = p.hidden[l].out;
      float* swap = in;
      in = out, out = swap;
    }
    last_layer<typename T::V>(p, at, count, width, in);
  }
}

}  // namespace
}  // namespace liif

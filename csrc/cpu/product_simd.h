// A register-blocked matrix product over vector types, of which everything else here is made.
//
// V describes vectors of floats:  Reg, kLanes (4, 8 or 16), load, store, set1, add, sub, mul, fma(a, b, c) = a b + c, relu, sum.
// T describes stored activations: V, Elem, kPerWord (elements in 32 bits, multiplied in one step), kRows x kVectors (the register
//   block), load and store (kLanes elements <-> Reg), Word and Weights with word(p), weights(p), mac(acc, word, weights).
// Sums<T> are what T adds to: floats, but for what says otherwise.
#pragma once

#include "../decode.h"

namespace liif {
namespace {

template <class T>
struct Sums {
  using Reg = typename T::V::Reg;
  static Reg start(const float* bias) { return T::V::load(bias); }
  static Reg finish(Reg sum, const HiddenLayer&, int /*column*/, float /*step*/) { return sum; }
};

// T of int8 adds whole numbers, of type Whole with floats(Whole), which `finish` makes what the layer answers.
template <class T>
struct WholeSums {
  using Reg = typename T::Whole;
  static Reg start(const float*) { return Reg{}; }
  static typename T::V::Reg finish(Reg sum, const HiddenLayer& layer, int column, float step) {
    using V = typename T::V;
    const typename V::Reg by = V::mul(V::load(layer.multiplier + column), V::set1(step));
    return V::fma(T::floats(sum), by, V::load(layer.bias + column));
  }
};

// [kRows, in] x [in, N vectors] -> [kRows, N vectors]; N * kLanes columns, consecutive panels.
template <class T, int N, class Store>
inline __attribute__((always_inline)) void product_block(const typename T::Elem* a, const typename T::Elem* w, const float* bias,
                                                         int in, Store store) {
  using V = typename T::V;
  using Elem = typename T::Elem;
  constexpr int R = T::kRows, L = V::kLanes, P = T::kPerWord;
  const int64_t panel = static_cast<int64_t>(in) * kPanel;
  const Elem* row[R];
  for (int r = 0; r < R; ++r) row[r] = a + static_cast<int64_t>(r) * in;
  typename Sums<T>::Reg acc[R][N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[r][n] = Sums<T>::start(bias + n * L);
  }
  for (int k = 0; k < in; k += P) {
    typename T::Weights b[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) b[n] = T::weights(w + n * L / kPanel * panel + k * kPanel + n * L % kPanel * P);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const typename T::Word x = T::word(row[r] + k);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) acc[r][n] = T::mac(acc[r][n], x, b[n]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) store(r, n * L, acc[r][n]);
  }
}

}  // namespace
}  // namespace liif

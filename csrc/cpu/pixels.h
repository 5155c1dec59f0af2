// How pixels are stored, by the decoder and by the resampler. As in numbers.h, compiled once per instruction set.
#pragma once

#include <cstring>

#include "../pixels.h"

namespace liif {
namespace {

// How each type stores a number that is within its range.
template <class T>
struct StoredWhole {
  using Elem = T;
  static Elem of(float v) { return static_cast<Elem>(round_even(v)); }
};
struct StoredF16 {
  using Elem = uint16_t;
  static Elem of(float v) { return v == v ? float_to_f16(v) : 0x7e00; }
};
struct StoredF32 {
  using Elem = float;
  static Elem of(float v) { return v; }
};

// Not inlined, where compilers would write a loop of few steps out before they can make it one of vectors.
template <class Stored>
__attribute__((noinline)) void finish(const float* value, int64_t count, float scale, float shift, float low, float high,
                                      typename Stored::Elem* out) {
  for (int64_t i = 0; i < count; ++i) {
    float v = value[i] * scale + shift;
    v = v < low ? low : v;
    out[i] = Stored::of(v > high ? high : v);
  }
}

template <class Elem>
__attribute__((noinline)) void interleave(const Elem* r, const Elem* g, const Elem* b, int64_t count, Elem* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[3 * i] = r[i];
    out[3 * i + 1] = g[i];
    out[3 * i + 2] = b[i];
  }
}

// Pixels [column, column + count) of a row, at most N, from `planes[c][i]` in the network's range.
template <class Stored, int N>
void store_stretch(const Pixels& to, int64_t row, int64_t column, int64_t count, const float (*planes)[N]) {
  typename Stored::Elem line[3][N];
  for (int c = 0; c < 3; ++c) finish<Stored>(planes[c], N, to.scale[c], to.shift[c], to.low, to.high, line[c]);
  auto* out = static_cast<typename Stored::Elem*>(to.data) + row * to.row_stride + column * to.column_stride;
  if (to.channel_stride == 1 && to.column_stride == 3) return interleave(line[0], line[1], line[2], count, out);
  for (int c = 0; c < 3; ++c, out += to.channel_stride) {
    if (to.column_stride == 1) {
      std::memcpy(out, line[c], count * sizeof *out);
    } else {
      for (int64_t i = 0; i < count; ++i) out[i * to.column_stride] = line[c][i];
    }
  }
}

template <int N>
void store_pixels(const Pixels& to, int64_t row, int64_t column, int64_t count, const float (*planes)[N]) {
  switch (to.type) {
    case Type::u8: return store_stretch<StoredWhole<uint8_t>>(to, row, column, count, planes);
    case Type::u16: return store_stretch<StoredWhole<uint16_t>>(to, row, column, count, planes);
    case Type::f16: return store_stretch<StoredF16>(to, row, column, count, planes);
    default: return store_stretch<StoredF32>(to, row, column, count, planes);
  }
}

inline void store_rgb(const Pixels& to, int64_t row, int64_t column, const float rgb[3]) {
  const float planes[3][1] = {{rgb[0]}, {rgb[1]}, {rgb[2]}};
  store_pixels(to, row, column, 1, planes);
}

}  // namespace
}  // namespace liif

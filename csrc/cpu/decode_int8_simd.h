// The decoder with hidden layers in int8, over vector types: T of what they read, Z of z. Layers answer in f32, of which each row
// is rounded by its own largest value: most rows are far from what a channel's largest could be.
#pragma once

#include "decode_simd.h"

namespace liif {
namespace {

// Rows of rectified values, `steps` of which their largest is 255.
template <class T>
void quantize_rows(int rows, int width, const float* in, typename T::Elem* out, float* steps) {
  using V = typename T::V;
  constexpr float kLeast = 1e-30f;  // a row of zeros has a step too
  for (int r = 0; r < rows; ++r, in += width, out += width) {
    const float found = T::largest(in, width), largest = found > kLeast ? found : kLeast;
    const typename V::Reg by = V::set1(255 / largest);
    for (int c = 0; c < width; c += V::kLanes) T::store(out + c, V::mul(V::load(in + c), by));
    steps[r] = largest / 255;
  }
}

template <class T, class Z>
void decode_int8_tiles(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  using Elem = typename T::Elem;
  static_assert(kTileRows % T::kRows == 0, "a full tile is whole blocks");
  auto* quantized = reinterpret_cast<Elem*>(scratch.b);
  for (int64_t pixel = begin; pixel < end; pixel += kTilePixels) {
    const int count = static_cast<int>(end - pixel < kTilePixels ? end - pixel : kTilePixels);
    const int rows = count * p.sides * p.sides;
    const Cursor at(p, pixel);
    int width = p.width;
    first_layer<Z>(p, at, count, scratch.row_term, scratch.a);
    for (const HiddenLayer *layer = p.hidden, *last = p.hidden + p.hidden_count; layer < last; ++layer) {
      quantize_rows<T>(rows, width, scratch.a, quantized, scratch.steps);
      hidden_layer<T>(*layer, rows, quantized, scratch.steps, scratch.a);
      width = layer->out;
    }
    last_layer<typename T::V>(p, at, count, width, scratch.a);
  }
}

template <class T, class F32, class Bf16>
void decode_int8(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  p.type == Type::bf16 ? decode_int8_tiles<T, Bf16>(p, begin, end, scratch) : decode_int8_tiles<T, F32>(p, begin, end, scratch);
}

}  // namespace
}  // namespace liif

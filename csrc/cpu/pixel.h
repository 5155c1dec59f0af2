// The last step of a pixel, shared by the decoder and the resampler. As in numbers.h, compiled once per instruction set.
#pragma once

#include "../decode.h"
#include "../numbers.h"

namespace liif {
namespace {

// Params: DecodeParams or ResampleParams. `rgb` is in the network's range.
template <class Params>
inline void store_rgb(const Params& p, int64_t row, int64_t column, const float rgb[3]) {
  const int64_t at = (p.paired ? 0 : row * p.out_row_stride) + column * p.out_column_stride;
  for (int c = 0; c < 3; ++c) {
    float v = rgb[c] * p.scale[c] + p.shift[c];
    v = v < p.low ? p.low : v > p.high ? p.high : v;
    const int64_t i = at + c * p.out_channel_stride;
    switch (p.out_type) {
      case Type::u8: static_cast<uint8_t*>(p.out)[i] = static_cast<uint8_t>(round_even(v)); break;
      case Type::u16: static_cast<uint16_t*>(p.out)[i] = static_cast<uint16_t>(round_even(v)); break;
      case Type::f16: static_cast<uint16_t*>(p.out)[i] = v == v ? float_to_f16(v) : 0x7e00; break;
      default: static_cast<float*>(p.out)[i] = v;
    }
  }
}

}  // namespace
}  // namespace liif

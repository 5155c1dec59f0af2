// Storage types and the last step of a pixel, shared by the decoder and the resampler.
//
// Compiled once per instruction set and never shared between them: the linker could keep the copy of a set that the processor
// lacks. Hence the unnamed namespace, and no standard library templates here or in the files that include it.
#pragma once

#include <cstdint>

#include "../decode.h"

namespace liif {
namespace {

[[maybe_unused]] inline float bf16_to_float(uint16_t v) {
  union {
    uint32_t u;
    float f;
  } bits;
  bits.u = static_cast<uint32_t>(v) << 16;
  return bits.f;
}

[[maybe_unused]] inline uint16_t float_to_bf16(float f) {  // round to nearest even; finite values only
  union {
    uint32_t u;
    float f;
  } bits;
  bits.f = f;
  return static_cast<uint16_t>((bits.u + 0x7fff + ((bits.u >> 16) & 1)) >> 16);
}

// Round to nearest even for 0 <= v < 2^22: adding 1.5 * 2^23 leaves the integer in the low bits.
inline int32_t round_even(float v) {
  union {
    float f;
    int32_t i;
  } bits;
  bits.f = v + 12582912.0f;
  return bits.i - 0x4b400000;
}

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
      default: static_cast<float*>(p.out)[i] = v;
    }
  }
}

}  // namespace
}  // namespace liif

// The implementations of the decoder, one per instruction set, and what they share.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../decode.h"

namespace liif {

// Output pixels decoded together: their neighbours are the rows of the hidden layers' matrix products. 48 pixels of 4 neighbours
// are 192 rows, a multiple of every register block.
constexpr int kTilePixels = 48;
constexpr int kTileRows = kTilePixels * kMaxSides * kMaxSides;

// Per thread: two sets of activations and the row terms of the first layer.
struct Scratch {
  alignas(64) float a[kTileRows * kMaxWidth];
  alignas(64) float b[kTileRows * kMaxWidth];
  alignas(64) float row_term[kMaxSides * kMaxWidth];
};

// Decodes pixels [begin, end) in row-major order.
using DecodeRange = void (*)(const DecodeParams&, int64_t begin, int64_t end, Scratch&);

void decode_scalar(const DecodeParams&, int64_t begin, int64_t end, Scratch&);
void decode_avx2(const DecodeParams&, int64_t begin, int64_t end, Scratch&);
void decode_avx512(const DecodeParams&, int64_t begin, int64_t end, Scratch&);
void decode_avx512bf16(const DecodeParams&, int64_t begin, int64_t end, Scratch&);

// What follows is compiled once per instruction set and must never be shared between them: the linker could keep the copy of a
// set that the processor lacks. Hence the unnamed namespace, and no standard library templates in these files.
namespace {

// A tile of output pixels walks the output in row-major order and may cross rows.
struct Cursor {
  int64_t row, column;
  const int64_t columns;
  const bool paired;
  Cursor(const DecodeParams& p, int64_t pixel)
      : row(p.paired ? pixel : pixel / p.x.size),
        column(p.paired ? pixel : pixel % p.x.size),
        columns(p.x.size),
        paired(p.paired) {}
  void next() {
    if (paired) {
      ++row, ++column;
    } else if (++column == columns) {
      column = 0, ++row;
    }
  }
};

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

inline void store_pixel(const DecodeParams& p, int64_t row, int64_t column, const float rgb[3]) {
  const int64_t at = (p.paired ? 0 : row * p.out_row_stride) + column * p.out_column_stride;
  for (int c = 0; c < 3; ++c) {
    float v = (rgb[c] + p.last_bias[c]) * p.scale[c] + p.shift[c];
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

// Plain C++: a table for bytes, divisions for the rest.
#include "isa.h"

namespace liif {
namespace {

float value(const NormaliseParams& p, int c, float sample) { return (sample / p.white - p.mean[c]) / p.std[c]; }

void store(float* to, float v) { *to = v; }
void store(uint16_t* to, float v) { *to = float_to_bf16(v); }

// `of`(c, sample) gives what is stored.
template <class Sample, class Out, class Of>
void rows(const NormaliseParams& p, int64_t begin, int64_t end, Of of) {
  for (int64_t y = begin; y < end; ++y) {
    const Sample* from = static_cast<const Sample*>(p.image) + y * p.strides[0];
    Out* to = static_cast<Out*>(p.out) + y * p.out_row_stride;
    for (int64_t x = 0; x < p.columns; ++x, from += p.strides[1], to += kSkip) {
      for (int c = 0; c < 3; ++c) to[c] = of(c, from[c * p.strides[2]]);
      for (int c = 3; c < kSkip; ++c) to[c] = 0;
    }
  }
}

template <class Out>
void normalise_to(const NormaliseParams& p, int64_t begin, int64_t end) {
  const auto of = [&](int c, float sample) {
    Out stored;
    store(&stored, value(p, c, sample));
    return stored;
  };
  if (p.type == Type::u8) {
    Out table[3][256];
    for (int c = 0; c < 3; ++c) {
      for (int sample = 0; sample < 256; ++sample) table[c][sample] = of(c, static_cast<float>(sample));
    }
    rows<uint8_t, Out>(p, begin, end, [&](int c, uint8_t sample) { return table[c][sample]; });
  } else if (p.type == Type::u16) {
    rows<uint16_t, Out>(p, begin, end, of);
  } else if (p.type == Type::f16) {
    rows<uint16_t, Out>(p, begin, end, [&](int c, uint16_t sample) { return of(c, f16_to_float(sample)); });
  } else {
    rows<float, Out>(p, begin, end, of);
  }
}

}  // namespace

void normalise(const NormaliseParams& p, int64_t begin, int64_t end) {
  p.out_type == Type::bf16 ? normalise_to<uint16_t>(p, begin, end) : normalise_to<float>(p, begin, end);
}

}  // namespace liif

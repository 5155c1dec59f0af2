// ARM's NEON on other processors: SIMDe's translations, and the bf16 that it lacks.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/arm/neon.h>

#include <cstdint>

#include "../../csrc/numbers.h"

namespace liif {
namespace {

struct bfloat16x4_t {
  uint16_t v[4];
};
struct bfloat16x8_t {
  uint16_t v[8];
};

[[maybe_unused]] inline bfloat16x4_t emulated_pair(uint32x2_t bits) {
  bfloat16x4_t to;
  __builtin_memcpy(&to, &bits, sizeof to);
  return to;
}

[[maybe_unused]] inline bfloat16x8_t emulated_eight(uint16x8_t bits) {
  bfloat16x8_t to;
  __builtin_memcpy(&to, &bits, sizeof to);
  return to;
}

[[maybe_unused]] inline uint16x4_t emulated_bits(bfloat16x4_t from) {
  uint16x4_t bits;
  __builtin_memcpy(&bits, &from, sizeof bits);
  return bits;
}

[[maybe_unused]] inline bfloat16x4_t emulated_narrow(float32x4_t from) {
  float f[4];
  vst1q_f32(f, from);
  return {{float_to_bf16(f[0]), float_to_bf16(f[1]), float_to_bf16(f[2]), float_to_bf16(f[3])}};
}

// Lane i of the sums gets the products of pair i of `a` and pair `lane` of `b`, which are added to each other first.
[[maybe_unused]] inline float32x4_t emulated_bfdot(float32x4_t sums, bfloat16x8_t a, bfloat16x4_t b, int lane) {
  float f[4];
  vst1q_f32(f, sums);
  for (int i = 0; i < 4; ++i) {
    const float even = bf16_to_float(a.v[2 * i]) * bf16_to_float(b.v[2 * lane]);
    f[i] += even + bf16_to_float(a.v[2 * i + 1]) * bf16_to_float(b.v[2 * lane + 1]);
  }
  return vld1q_f32(f);
}

}  // namespace
}  // namespace liif

#define vreinterpret_bf16_u32 emulated_pair
#define vreinterpretq_bf16_u16 emulated_eight
#define vreinterpret_u16_bf16 emulated_bits
#define vcvt_bf16_f32 emulated_narrow
#define vbfdotq_lane_f32 emulated_bfdot

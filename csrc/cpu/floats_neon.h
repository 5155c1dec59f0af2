// Vectors of 4 floats for ARM's NEON, and products of stored elements; see product_simd.h for what both must have.
#pragma once

#ifdef LIIF_EMULATED  // tests run these files on other processors by translating the intrinsics
#include "emulated_neon.h"
#else
#include <arm_neon.h>
#endif

#include <cstdint>

#include "../numbers.h"

namespace liif {
namespace {

struct Floats {
  using Reg = float32x4_t;
  static constexpr int kLanes = 4;
  static Reg load(const float* p) { return vld1q_f32(p); }
  static void store(float* p, Reg v) { vst1q_f32(p, v); }
  static Reg set1(float v) { return vdupq_n_f32(v); }
  static Reg add(Reg a, Reg b) { return vaddq_f32(a, b); }
  static Reg sub(Reg a, Reg b) { return vsubq_f32(a, b); }
  static Reg mul(Reg a, Reg b) { return vmulq_f32(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return vfmaq_f32(c, a, b); }
  static Reg relu(Reg v) { return vmaxq_f32(v, vdupq_n_f32(0)); }  // NaN stays
  static float sum(Reg v) { return vaddvq_f32(v); }
};

struct F32 {
  using V = Floats;
  using Elem = float;
  using Word = float;
  using Weights = float32x4_t;
  static constexpr int kPerWord = 1, kRows = 6, kVectors = 4;
  static float32x4_t load(const float* p) { return V::load(p); }
  static void store(float* p, float32x4_t v) { V::store(p, v); }
  static float value(float v) { return v; }
  static Word word(const float* p) { return *p; }
  static Weights weights(const float* p) { return V::load(p); }
  static float32x4_t mac(float32x4_t acc, Word x, Weights w) { return vfmaq_n_f32(acc, w, x); }
};

// bf16 in memory, f32 in registers.
struct Bf16Storage {
  using V = Floats;
  using Elem = uint16_t;
  static float value(uint16_t v) { return bf16_to_float(v); }
  static float32x4_t load(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
  static void store(float* p, float32x4_t v) { V::store(p, v); }
  static void store(uint16_t* p, float32x4_t v) {  // round to nearest even
    const uint32x4_t u = vreinterpretq_u32_f32(v);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    vst1_u16(p, vshrn_n_u32(vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), odd), 16));
  }
};

// Widened to f32: two products where ARM's BF16 extension has one.
struct Bf16 : Bf16Storage {
  struct Word {
    float32x2_t even, odd;
  };
  struct Weights {
    float32x4_t even, odd;
  };
  static constexpr int kPerWord = 2, kRows = 4, kVectors = 4;
  static Word word(const uint16_t* p) {
    const uint32x2_t v = vld1_lane_u32(reinterpret_cast<const uint32_t*>(p), vdup_n_u32(0), 0);
    return {vreinterpret_f32_u32(vshl_n_u32(v, 16)), vreinterpret_f32_u32(vand_u32(v, vdup_n_u32(0xffff0000u)))};
  }
  static Weights weights(const uint16_t* p) {
    const uint32x4_t v = vreinterpretq_u32_u16(vld1q_u16(p));
    return {vreinterpretq_f32_u32(vshlq_n_u32(v, 16)), vreinterpretq_f32_u32(vandq_u32(v, vdupq_n_u32(0xffff0000u)))};
  }
  static float32x4_t mac(float32x4_t acc, const Word& x, const Weights& w) {
    return vfmaq_lane_f32(vfmaq_lane_f32(acc, w.even, x.even, 0), w.odd, x.odd, 0);
  }
};

}  // namespace
}  // namespace liif

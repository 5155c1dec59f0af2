// ARM's BF16 extension: products of bf16 pairs summed in f32 by one instruction.
#pragma once

#include "floats_neon.h"

namespace liif {
namespace {

struct Bf16Pairs : Bf16Storage {
  using Word = bfloat16x4_t;
  using Weights = bfloat16x8_t;
  static constexpr int kPerWord = 2, kRows = 6, kVectors = 4;
  using Bf16Storage::store;
  static void store(uint16_t* p, float32x4_t v) { vst1_u16(p, vreinterpret_u16_bf16(vcvt_bf16_f32(v))); }
  static Word word(const uint16_t* p) {
    return vreinterpret_bf16_u32(vld1_lane_u32(reinterpret_cast<const uint32_t*>(p), vdup_n_u32(0), 0));
  }
  static Weights weights(const uint16_t* p) { return vreinterpretq_bf16_u16(vld1q_u16(p)); }
  static float32x4_t mac(float32x4_t acc, Word x, Weights w) { return vbfdotq_lane_f32(acc, w, x, 0); }
};

}  // namespace
}  // namespace liif

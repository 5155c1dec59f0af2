// ARM's NEON.
#include "floats_neon.h"
#include "resample_simd.h"

namespace liif {
namespace {

struct Four : Floats {
  static Reg product(Reg a, Reg b) {
    Reg v = mul(a, b);
#ifndef LIIF_EMULATED
    asm("" : "+w"(v));
#endif
    return v;
  }
  static Reg clamp(Reg v, Reg low, Reg high) { return vminq_f32(vmaxq_f32(v, low), high); }
  static Reg sums(const float* taps, const int32_t* first, int64_t fine, const float* line) {
    static_assert(kTaps == 8, "two registers of taps per pixel");
    Reg pixel[4];  // pairs of each
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const float *tap = taps + j * kTaps, *from = line + (first[j] - fine);
      pixel[j] = vpaddq_f32(mul(load(tap), load(from)), mul(load(tap + 4), load(from + 4)));
    }
    return vpaddq_f32(vpaddq_f32(pixel[0], pixel[1]), vpaddq_f32(pixel[2], pixel[3]));
  }
  static void store_bytes(uint8_t* out, Reg r, Reg g, Reg b) {
    const auto narrow = [](Reg v) { return vqmovun_s32(vcvtnq_s32_f32(v)); };
    const uint16x8_t rg = vcombine_u16(narrow(r), narrow(g)), bb = vcombine_u16(narrow(b), vdup_n_u16(0));
    const uint8x16_t all = vcombine_u8(vqmovn_u16(rg), vqmovn_u16(bb));
    static constexpr uint8_t kOrder[16] = {0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, 12, 12, 12, 12};
    const uint8x16_t mixed = vqtbl1q_u8(all, vld1q_u8(kOrder));
    vst1_u8(out, vget_low_u8(mixed));
    const uint32_t rest = vgetq_lane_u32(vreinterpretq_u32_u8(mixed), 2);
    std::memcpy(out + 8, &rest, sizeof rest);
  }
};

}  // namespace

void resample_neon(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  resample_any<Vectors<Four>>(p, begin, end, strip);
}

}  // namespace liif

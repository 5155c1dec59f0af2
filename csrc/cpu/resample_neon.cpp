// ARM's NEON.
#include "floats_neon.h"
#include "resample_simd.h"

namespace liif {
namespace {

struct Four : Floats {
  // A register holds what they read by each tap.
  static bool close(const int32_t* first) { return first[kLanes - 1] - first[0] < kLanes; }
  static void spread(const float* line, const int32_t* first, Reg* out) {
    const uint32x4_t at = vreinterpretq_u32_s32(vsubq_s32(vld1q_s32(first), vdupq_n_s32(first[0])));
    const uint8x16_t bytes = vreinterpretq_u8_u32(vmlaq_n_u32(vdupq_n_u32(0x03020100), at, 0x04040404));
    for (int k = 0; k < kTaps; ++k) {
      out[k] = vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(load(line + k)), bytes));
    }
  }
  static Reg min(Reg a, Reg b) { return vminq_f32(a, b); }
  static Reg sums(const float* taps, const int32_t* first, int64_t fine, const float* line) {
    static_assert(kTaps == 8, "two registers of taps per pixel");
    Reg pixel[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const float *tap = taps + j * kTaps, *from = line + (first[j] - fine);
      pixel[j] = fma(load(tap + 4), load(from + 4), mul(load(tap), load(from)));
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

  static Reg fours(const float* p, int64_t) { return load(p); }
  static void pieces(const float* z, int64_t, Reg& low, Reg& high) { low = load(z), high = load(z + kFactor); }
  static void pieces(const uint16_t* z, int64_t, Reg& low, Reg& high) {
    const uint16x8_t v = vld1q_u16(z);
    low = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(v), 16));
    high = vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(v), 16));
  }
  static void turn(Reg* v) {
    const auto pairs = [](Reg a, Reg b, bool high) {
      const float64x2_t x = vreinterpretq_f64_f32(a), y = vreinterpretq_f64_f32(b);
      return vreinterpretq_f32_f64(high ? vzip2q_f64(x, y) : vzip1q_f64(x, y));
    };
    const Reg a = vzip1q_f32(v[0], v[1]), b = vzip2q_f32(v[0], v[1]);
    const Reg c = vzip1q_f32(v[2], v[3]), d = vzip2q_f32(v[2], v[3]);
    v[0] = pairs(a, c, false), v[1] = pairs(a, c, true), v[2] = pairs(b, d, false), v[3] = pairs(b, d, true);
  }
  static void store_cells(uint8_t* out, const Reg (*v)[3]) {
    uint32x4x3_t words;  // each four of a cell's twelve bytes
    for (int i = 0; i < 3; ++i) {
      const auto whole = [&](int k) { return vcvtnq_u32_f32(v[(4 * i + k) / 3][(4 * i + k) % 3]); };
      const uint32x4_t low = vsliq_n_u32(whole(0), whole(1), 8), high = vsliq_n_u32(whole(2), whole(3), 8);
      words.val[i] = vsliq_n_u32(low, high, 16);
    }
    vst3q_u32(reinterpret_cast<uint32_t*>(out), words);
  }
};

}  // namespace

void resample_neon(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  resample_any<Vectors<Four>>(p, begin, end, strip);
}

}  // namespace liif

// The resampler's inner loops over a vector type V of floats, whose lanes are output pixels. V has what floats_*.h have, and:
//   product(a, b), which is never fused with a sum (it would be rounded otherwise than alone), and clamp(v, low, high);
//   sums(taps, first, fine, line): lane j is the sum of the kTaps products taps[j] . line[first[j] - fine], of neighbours, then
//   of neighbouring pairs, then of fours; store_bytes(out, r, g, b): kLanes pixels, interleaved.
//
// A pixel is the same bits whichever way it is summed, so that it does not matter where a tile begins.
#pragma once

#include "resample_rows.h"

namespace liif {
namespace {

template <class V>
struct Vectors {
  using Reg = typename V::Reg;
  static constexpr int L = V::kLanes;

  // As V::sums for pixels that have their taps in common and lie a fine column apart: lane j is sum_k taps[k] * line[j + k].
  static Reg even_sums(const Reg* taps, const float* line) {
    Reg v[kTaps];
#pragma GCC unroll 8
    for (int k = 0; k < kTaps; ++k) v[k] = V::product(taps[k], V::load(line + k));
    const Reg s03 = V::add(V::add(v[0], v[1]), V::add(v[2], v[3]));
    const Reg s47 = V::add(V::add(v[4], v[5]), V::add(v[6], v[7]));
    return V::add(s03, s47);
  }

  static void add_rows(const float* const* rows, const float* taps, int64_t count, float* out) {
    Reg tap[kTaps];
    for (int k = 0; k < kTaps; ++k) tap[k] = V::set1(taps[k]);
    // A strip's length is a multiple of every vector's, so the last may run past `count`.
    for (int64_t x = 0; x < count; x += L) {
      Reg sum = V::set1(0);
      for (int k = 0; k < kTaps; ++k) sum = V::fma(tap[k], V::load(rows[k] + x), sum);
      V::store(out + x, sum);
    }
  }

  static void columns(const ResampleParams& p, int64_t row, int64_t begin, int64_t end, Run even, int64_t fine,
                      const float (*sum)[kStrip]) {
    Reg rgb[3];
    const auto apart = [&](int64_t from, int64_t to) {
      for (int64_t j = from; j < to; j += L) {
        const int count = to - j < L ? static_cast<int>(to - j) : L;
        const float* taps = p.x.taps + j * kTaps;
        const int32_t* first = p.x.first + j;
        alignas(64) float own[L * kTaps];
        int32_t own_first[L];
        if (count < L) {  // the last again and again
          for (int i = 0; i < L; ++i) {
            const int at = i < count ? i : count - 1;
            own_first[i] = first[at];
            std::memcpy(own + i * kTaps, taps + at * kTaps, kTaps * sizeof(float));
          }
          taps = own, first = own_first;
        }
        for (int c = 0; c < 3; ++c) rgb[c] = V::sums(taps, first, fine, sum[c]);
        store(p, row, j, count, rgb);
      }
    };
    const int64_t whole = even.begin + (even.end - even.begin) / L * L;
    apart(begin, even.begin);
    if (even.begin < whole) {
      Reg taps[kTaps];
      for (int k = 0; k < kTaps; ++k) taps[k] = V::set1(p.x.taps[even.begin * kTaps + k]);
      const int64_t from = p.x.first[even.begin] - fine - even.begin;
      for (int64_t j = even.begin; j < whole; j += L) {
        for (int c = 0; c < 3; ++c) rgb[c] = even_sums(taps, sum[c] + from + j);
        store(p, row, j, L, rgb);
      }
    }
    apart(whole, end);
  }

  // Output columns [j, j + count) of a row, at most kLanes.
  static void store(const ResampleParams& p, int64_t row, int64_t j, int count, const Reg* rgb) {
    if (count == L && p.out_type == Type::u8 && p.out_channel_stride == 1 && p.out_column_stride == 3) {
      const Reg low = V::set1(p.low), high = V::set1(p.high);
      Reg v[3];
      for (int c = 0; c < 3; ++c) v[c] = V::clamp(V::fma(rgb[c], V::set1(p.scale[c]), V::set1(p.shift[c])), low, high);
      V::store_bytes(static_cast<uint8_t*>(p.out) + row * p.out_row_stride + 3 * j, v[0], v[1], v[2]);
      return;
    }
    float planes[3][L];
    for (int c = 0; c < 3; ++c) V::store(planes[c], rgb[c]);
    for (int i = 0; i < count; ++i) {
      const float pixel[3] = {planes[0][i], planes[1][i], planes[2][i]};
      store_rgb(p, row, j + i, pixel);
    }
  }
};

}  // namespace
}  // namespace liif

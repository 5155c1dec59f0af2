// The resampler's inner loops over a vector type V of floats and, eight output pixels at a time, in AVX2. V has what floats_*.h
// have, and:  product(a, b), which is never fused with a sum (it would be rounded otherwise than alone), clamp(v, low, high),
// eights(v, i): lanes [8 i, 8 i + 8), and store_bytes(out, r, g, b): kLanes pixels, interleaved.
//
// A pixel is the same bits whichever way it is summed, so that it does not matter where a tile begins.
#pragma once

#include <immintrin.h>

#include "resample_rows.h"

namespace liif {
namespace {

// Eight sums of kTaps products: lane j is taps[j] . line[first[j] - fine].
inline __m256 eight_sums(const float* taps, const int32_t* first, int64_t fine, const float* line) {
  static_assert(kTaps == 8, "one register of taps per pixel");
  __m256 v[8];
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    v[j] = _mm256_mul_ps(_mm256_loadu_ps(taps + j * kTaps), _mm256_loadu_ps(line + (first[j] - fine)));
  }
  // Pairs, then fours, then the two halves of each register.
  const __m256 s01 = _mm256_hadd_ps(v[0], v[1]), s23 = _mm256_hadd_ps(v[2], v[3]);
  const __m256 s45 = _mm256_hadd_ps(v[4], v[5]), s67 = _mm256_hadd_ps(v[6], v[7]);
  const __m256 s03 = _mm256_hadd_ps(s01, s23), s47 = _mm256_hadd_ps(s45, s67);
  return _mm256_add_ps(_mm256_permute2f128_ps(s03, s47, 0x20), _mm256_permute2f128_ps(s03, s47, 0x31));
}

// Eight pixels, interleaved: 24 bytes are written.
inline void store_eight(uint8_t* out, __m256 r, __m256 g, __m256 b) {
  const __m256i rg = _mm256_packs_epi32(_mm256_cvtps_epi32(r), _mm256_cvtps_epi32(g));
  const __m256i bb = _mm256_packs_epi32(_mm256_cvtps_epi32(b), _mm256_setzero_si256());
  const __m256i all = _mm256_packus_epi16(rg, bb);  // each half: 4 r, 4 g, 4 b, 4 zeros
  const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, -1, -1, -1, -1));
  const __m256i mixed = _mm256_shuffle_epi8(all, order);
  const __m128i low = _mm256_castsi256_si128(mixed), high = _mm256_extracti128_si256(mixed, 1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_or_si128(low, _mm_slli_si128(high, 12)));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out + 16), _mm_srli_si128(high, 4));
}

inline bool in_bytes(const ResampleParams& p) {
  return p.out_type == Type::u8 && p.out_channel_stride == 1 && p.out_column_stride == 3;
}

template <class V>
struct Vectors {
  using Reg = typename V::Reg;

  // kLanes sums of kTaps products with taps in common: lane j is sum_k taps[k] * line[j + k], in the order of `eight_sums`.
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
    for (int64_t x = 0; x < count; x += V::kLanes) {
      Reg sum = V::set1(0);
      for (int k = 0; k < kTaps; ++k) sum = V::fma(tap[k], V::load(rows[k] + x), sum);
      V::store(out + x, sum);
    }
  }

  static void columns(const ResampleParams& p, int64_t row, int64_t begin, int64_t end, Run even, int64_t fine,
                      const float (*sum)[kStrip]) {
    __m256 rgb[3];
    const auto apart = [&](int64_t from, int64_t to) {
      for (int64_t j = from; j < to; j += 8) {
        const int count = to - j < 8 ? static_cast<int>(to - j) : 8;
        const float* taps = p.x.taps + j * kTaps;
        const int32_t* first = p.x.first + j;
        alignas(32) float own[8 * kTaps];
        int32_t own_first[8];
        if (count < 8) {  // the last again and again
          for (int i = 0; i < 8; ++i) {
            const int at = i < count ? i : count - 1;
            own_first[i] = first[at];
            _mm256_store_ps(own + i * kTaps, _mm256_loadu_ps(taps + at * kTaps));
          }
          taps = own, first = own_first;
        }
        for (int c = 0; c < 3; ++c) rgb[c] = eight_sums(taps, first, fine, sum[c]);
        store(p, row, j, count, rgb);
      }
    };
    const int64_t whole = even.begin + (even.end - even.begin) / V::kLanes * V::kLanes;
    apart(begin, even.begin);
    if (even.begin < whole) {
      Reg taps[kTaps];
      for (int k = 0; k < kTaps; ++k) taps[k] = V::set1(p.x.taps[even.begin * kTaps + k]);
      const int64_t from = p.x.first[even.begin] - fine - even.begin;
      for (int64_t j = even.begin; j < whole; j += V::kLanes) {
        Reg sums[3];
        for (int c = 0; c < 3; ++c) sums[c] = even_sums(taps, sum[c] + from + j);
        if (in_bytes(p)) {
          for (int c = 0; c < 3; ++c) {
            sums[c] = V::clamp(V::fma(sums[c], V::set1(p.scale[c]), V::set1(p.shift[c])), V::set1(p.low), V::set1(p.high));
          }
          V::store_bytes(static_cast<uint8_t*>(p.out) + row * p.out_row_stride + 3 * j, sums[0], sums[1], sums[2]);
          continue;
        }
        for (int eight = 0; eight < V::kLanes / 8; ++eight) {
          for (int c = 0; c < 3; ++c) rgb[c] = V::eights(sums[c], eight);
          store(p, row, j + 8 * eight, 8, rgb);
        }
      }
    }
    apart(whole, end);
  }

  // Output columns [j, j + count) of a row, at most eight.
  static void store(const ResampleParams& p, int64_t row, int64_t j, int count, const __m256* rgb) {
    if (count == 8 && in_bytes(p)) {
      const __m256 low = _mm256_set1_ps(p.low), high = _mm256_set1_ps(p.high);
      __m256 v[3];
      for (int c = 0; c < 3; ++c) {
        v[c] = _mm256_fmadd_ps(rgb[c], _mm256_set1_ps(p.scale[c]), _mm256_set1_ps(p.shift[c]));
        v[c] = _mm256_min_ps(_mm256_max_ps(v[c], low), high);
      }
      store_eight(static_cast<uint8_t*>(p.out) + row * p.out_row_stride + 3 * j, v[0], v[1], v[2]);
      return;
    }
    float planes[3][8];
    for (int c = 0; c < 3; ++c) _mm256_storeu_ps(planes[c], rgb[c]);
    for (int i = 0; i < count; ++i) {
      const float pixel[3] = {planes[0][i], planes[1][i], planes[2][i]};
      store_rgb(p, row, j + i, pixel);
    }
  }
};

}  // namespace
}  // namespace liif

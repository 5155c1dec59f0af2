// AVX2 and FMA.
#include "floats_avx2.h"
#include "resample_eights.h"
#include "resample_simd.h"

namespace liif {
namespace {

struct Eight : Floats {
  // A register holds what they read by each tap.
  static bool close(const int32_t* first) { return first[kLanes - 1] - first[0] < kLanes; }
  static void spread(const float* line, const int32_t* first, Reg* out) {
    const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first));
    const __m256i at = _mm256_sub_epi32(all, _mm256_set1_epi32(first[0]));
    for (int k = 0; k < kTaps; ++k) out[k] = _mm256_permutevar8x32_ps(load(line + k), at);
  }
  static Reg min(Reg a, Reg b) { return _mm256_min_ps(a, b); }
  static Reg sums(const float* taps, const int32_t* first, int64_t fine, const float* line) {
    return eight_sums(taps, first, fine, line);
  }
  static void store_bytes(uint8_t* out, Reg r, Reg g, Reg b) {
    const __m256i rg = _mm256_packs_epi32(_mm256_cvtps_epi32(r), _mm256_cvtps_epi32(g));
    const __m256i bb = _mm256_packs_epi32(_mm256_cvtps_epi32(b), _mm256_setzero_si256());
    const __m256i all = _mm256_packus_epi16(rg, bb);  // each half: 4 r, 4 g, 4 b, 4 zeros
    const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, -1, -1, -1, -1));
    const __m256i mixed = _mm256_shuffle_epi8(all, order);
    const __m128i low = _mm256_castsi256_si128(mixed), high = _mm256_extracti128_si256(mixed, 1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_or_si128(low, _mm_slli_si128(high, 12)));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + 16), _mm_srli_si128(high, 4));
  }

  static Reg fours(const float* z, int64_t step) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(z)), _mm_loadu_ps(z + step), 1);
  }
  static void pieces(const float* z, int64_t step, Reg& low, Reg& high) {
    low = fours(z, step * kFineChannels), high = fours(z + kFactor, step * kFineChannels);
  }
  static void pieces(const uint16_t* z, int64_t step, Reg& low, Reg& high) {
    const auto eight = [&](int64_t i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(z + i * step * kFineChannels)); };
    const __m256i v = _mm256_inserti128_si256(_mm256_castsi128_si256(eight(0)), eight(1), 1);
    low = _mm256_castsi256_ps(_mm256_unpacklo_epi16(_mm256_setzero_si256(), v));
    high = _mm256_castsi256_ps(_mm256_unpackhi_epi16(_mm256_setzero_si256(), v));
  }
  static void turn(Reg* v) {
    const Reg a = _mm256_unpacklo_ps(v[0], v[1]), b = _mm256_unpackhi_ps(v[0], v[1]);
    const Reg c = _mm256_unpacklo_ps(v[2], v[3]), d = _mm256_unpackhi_ps(v[2], v[3]);
    v[0] = _mm256_shuffle_ps(a, c, 0x44), v[1] = _mm256_shuffle_ps(a, c, 0xee);
    v[2] = _mm256_shuffle_ps(b, d, 0x44), v[3] = _mm256_shuffle_ps(b, d, 0xee);
  }
  static void store_cells(uint8_t* out, const Reg (*v)[3]) {
    const __m256i transposed = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    __m256i word[3];  // of a cell: four of its twelve bytes
    for (int i = 0; i < 3; ++i) {
      const auto whole = [&](int k) { return _mm256_cvtps_epi32(v[(4 * i + k) / 3][(4 * i + k) % 3]); };
      const __m256i low = _mm256_packs_epi32(whole(0), whole(1)), high = _mm256_packs_epi32(whole(2), whole(3));
      word[i] = _mm256_shuffle_epi8(_mm256_packus_epi16(low, high), transposed);
    }
    const auto mixed = [&](__m256i cell, int first, int second, int third) {
      // Each third lane of a word, from lane 0, 1 and 2 on.
      const __m256i two = _mm256_blend_epi32(_mm256_permutevar8x32_epi32(word[first], cell),
                                             _mm256_permutevar8x32_epi32(word[second], cell), 0x92);
      return _mm256_blend_epi32(two, _mm256_permutevar8x32_epi32(word[third], cell), 0x24);
    };
    __m256i* to = reinterpret_cast<__m256i*>(out);
    _mm256_storeu_si256(to, mixed(_mm256_setr_epi32(0, 0, 0, 1, 1, 1, 2, 2), 0, 1, 2));
    _mm256_storeu_si256(to + 1, mixed(_mm256_setr_epi32(2, 3, 3, 3, 4, 4, 4, 5), 2, 0, 1));
    _mm256_storeu_si256(to + 2, mixed(_mm256_setr_epi32(5, 5, 6, 6, 6, 7, 7, 7), 1, 2, 0));
  }
};

}  // namespace

void resample_avx2(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  resample_any<Vectors<Eight>>(p, begin, end, strip);
}

}  // namespace liif

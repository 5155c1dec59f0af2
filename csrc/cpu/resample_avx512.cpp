// AVX-512.
#include "floats_avx512.h"
#include "resample_eights.h"
#include "resample_simd.h"

namespace liif {
namespace {

struct Sixteen : Floats {
  static Reg min(Reg a, Reg b) { return _mm512_min_ps(a, b); }
  static Reg sums(const float* taps, const int32_t* first, int64_t fine, const float* line) {
    const __m256 low = eight_sums(taps, first, fine, line), high = eight_sums(taps + 8 * kTaps, first + 8, fine, line);
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
  }

  // Two registers hold what they read by each tap.
  static bool close(const int32_t* first) { return first[kLanes - 1] - first[0] < 2 * kLanes; }
  static void spread(const float* line, const int32_t* first, Reg* out) {
    const __m512i at = _mm512_sub_epi32(_mm512_loadu_si512(first), _mm512_set1_epi32(first[0]));
    if (first[kLanes - 1] - first[0] + kTaps <= 2 * kLanes) {  // and by all taps
      const Reg low = load(line), high = load(line + kLanes);
      for (int k = 0; k < kTaps; ++k) out[k] = _mm512_permutex2var_ps(low, _mm512_add_epi32(at, _mm512_set1_epi32(k)), high);
    } else {
      for (int k = 0; k < kTaps; ++k) out[k] = _mm512_permutex2var_ps(load(line + k), at, load(line + k + kLanes));
    }
  }

  static void store_bytes(uint8_t* out, Reg r, Reg g, Reg b) {
    const __m512i rg = _mm512_packs_epi32(_mm512_cvtps_epi32(r), _mm512_cvtps_epi32(g));
    const __m512i bb = _mm512_packs_epi32(_mm512_cvtps_epi32(b), _mm512_setzero_si512());
    const __m512i all = _mm512_packus_epi16(rg, bb);  // each quarter: 4 r, 4 g, 4 b, 4 zeros
    const __m512i order = _mm512_set4_epi32(-1, 0x0b07030a, 0x06020905, 0x01080400);
    const __m512i quarters = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
    const __m512i mixed = _mm512_permutexvar_epi32(quarters, _mm512_shuffle_epi8(all, order));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(mixed));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 32), _mm512_extracti32x4_epi32(mixed, 2));
  }

  static Reg fours(const float* z, int64_t step) {
    Reg v = _mm512_castps128_ps512(_mm_loadu_ps(z));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(z + step), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(z + 2 * step), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps(z + 3 * step), 3);
  }
  static void pieces(const float* z, int64_t step, Reg& low, Reg& high) {
    low = fours(z, step * kFineChannels), high = fours(z + kFactor, step * kFineChannels);
  }
  static void pieces(const uint16_t* z, int64_t step, Reg& low, Reg& high) {
    const auto eight = [&](int64_t i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(z + i * step * kFineChannels)); };
    __m512i v = _mm512_inserti32x4(_mm512_castsi128_si512(eight(0)), eight(1), 1);
    v = _mm512_inserti32x4(_mm512_inserti32x4(v, eight(2), 2), eight(3), 3);
    low = _mm512_castsi512_ps(_mm512_unpacklo_epi16(_mm512_setzero_si512(), v));
    high = _mm512_castsi512_ps(_mm512_unpackhi_epi16(_mm512_setzero_si512(), v));
  }
  static void turn(Reg* v) {
    const auto pairs = [](Reg a, Reg b, bool high) {
      const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
      return _mm512_castpd_ps(high ? _mm512_unpackhi_pd(x, y) : _mm512_unpacklo_pd(x, y));
    };
    const Reg a = _mm512_unpacklo_ps(v[0], v[1]), b = _mm512_unpackhi_ps(v[0], v[1]);
    const Reg c = _mm512_unpacklo_ps(v[2], v[3]), d = _mm512_unpackhi_ps(v[2], v[3]);
    v[0] = pairs(a, c, false), v[1] = pairs(a, c, true), v[2] = pairs(b, d, false), v[3] = pairs(b, d, true);
  }
  static void store_cells(uint8_t* out, const Reg (*v)[3]) {
    const __m512i transposed = _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400);
    __m512i word[3];  // of a cell: four of its twelve bytes
    for (int i = 0; i < 3; ++i) {
      const auto whole = [&](int k) { return _mm512_cvtps_epi32(v[(4 * i + k) / 3][(4 * i + k) % 3]); };
      const __m512i low = _mm512_packs_epi32(whole(0), whole(1)), high = _mm512_packs_epi32(whole(2), whole(3));
      word[i] = _mm512_shuffle_epi8(_mm512_packus_epi16(low, high), transposed);
    }
    alignas(64) static constexpr int32_t kCell[3][16] = {{0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5},
                                                         {5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10},
                                                         {10, 11, 11, 11, 12, 12, 12, 13, 13, 13, 14, 14, 14, 15, 15, 15}};
    for (int i = 0; i < 3; ++i) {
      const __m512i cell = _mm512_load_si512(kCell[i]);
      __m512i mixed = _mm512_permutexvar_epi32(cell, word[i]);
      mixed = _mm512_mask_permutexvar_epi32(mixed, 0x2492, cell, word[(i + 1) % 3]);
      mixed = _mm512_mask_permutexvar_epi32(mixed, 0x4924, cell, word[(i + 2) % 3]);
      _mm512_storeu_si512(out + 64 * i, mixed);
    }
  }
};

}  // namespace

void resample_avx512(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  resample_any<Vectors<Sixteen>>(p, begin, end, strip);
}

}  // namespace liif

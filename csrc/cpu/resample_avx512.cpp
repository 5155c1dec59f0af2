// AVX-512.
#include "floats_avx512.h"
#include "resample_eights.h"
#include "resample_simd.h"

namespace liif {
namespace {

struct Sixteen : Floats {
  static Reg product(Reg a, Reg b) {
    Reg v = mul(a, b);
#ifndef LIIF_EMULATED
    asm("" : "+x"(v));
#endif
    return v;
  }
  static Reg clamp(Reg v, Reg low, Reg high) { return _mm512_min_ps(_mm512_max_ps(v, low), high); }
  static Reg sums(const float* taps, const int32_t* first, int64_t fine, const float* line) {
    const __m256 low = eight_sums(taps, first, fine, line), high = eight_sums(taps + 8 * kTaps, first + 8, fine, line);
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
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
};

}  // namespace

void resample_avx512(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  resample_any<Vectors<Sixteen>>(p, begin, end, strip);
}

}  // namespace liif

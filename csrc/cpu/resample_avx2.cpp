// AVX2 and FMA.
#include "floats_avx2.h"
#include "resample_eights.h"
#include "resample_simd.h"

namespace liif {
namespace {

struct Eight : Floats {
  static Reg product(Reg a, Reg b) {
    Reg v = mul(a, b);
    asm("" : "+x"(v));
    return v;
  }
  static Reg clamp(Reg v, Reg low, Reg high) { return _mm256_min_ps(_mm256_max_ps(v, low), high); }
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
};

}  // namespace

void resample_avx2(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  resample_any<Vectors<Eight>>(p, begin, end, strip);
}

}  // namespace liif

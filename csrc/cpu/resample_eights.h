// Sums of eight output pixels in AVX2, for AVX-512 too.
#pragma once

#include <immintrin.h>

#include "../resample.h"

namespace liif {
namespace {

// Lane j is taps[j] . line[first[j] - fine], kTaps products.
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

}  // namespace
}  // namespace liif

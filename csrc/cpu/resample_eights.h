// Sums of eight output pixels in AVX2, for AVX-512 too.
#pragma once

#include <immintrin.h>

#include "../resample.h"

namespace liif {
namespace {

// Lane j is the sum of taps[j] . line[first[j] - fine] in the order of resample_simd.h.
inline __m256 eight_sums(const float* taps, const int32_t* first, int64_t fine, const float* line) {
  static_assert(kTaps == 8, "two halves of a pixel");
  const auto fours = [&](int j) {
    const float *tap = taps + j * kTaps, *from = line + (first[j] - fine);
    return _mm_fmadd_ps(_mm_loadu_ps(tap + 4), _mm_loadu_ps(from + 4), _mm_mul_ps(_mm_loadu_ps(tap), _mm_loadu_ps(from)));
  };
  __m256 v[4];  // pixels j and j + 4
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) v[j] = _mm256_insertf128_ps(_mm256_castps128_ps256(fours(j)), fours(j + 4), 1);
  return _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
}

}  // namespace
}  // namespace liif

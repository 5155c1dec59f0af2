// AVX-VNNI for machines without it.
#pragma once

#include <cstdint>
#include <immintrin.h>

namespace liif {
namespace {

[[maybe_unused]] inline __m256i emulated_dpbusd(__m256i sums, __m256i a, __m256i b) {
  int32_t sum[8];
  uint8_t from[32];
  int8_t by[32];
  __builtin_memcpy(sum, &sums, sizeof sum);
  __builtin_memcpy(from, &a, sizeof from);
  __builtin_memcpy(by, &b, sizeof by);
  for (int i = 0; i < 32; ++i) sum[i / 4] += from[i] * by[i];
  __builtin_memcpy(&sums, sum, sizeof sum);
  return sums;
}

}  // namespace
}  // namespace liif

#define _mm256_dpbusd_avx_epi32 emulated_dpbusd

// AVX-512 for machines without it: SIMDe's translations, and the intrinsics of ours that it lacks.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

namespace liif {
namespace {

// The tree of additions that compilers make of the real one.
[[maybe_unused]] inline float emulated_reduce_add_ps(simde__m512 v) {
  float f[16];
  simde_mm512_storeu_ps(f, v);
  for (int half = 8; half; half /= 2) {
    for (int i = 0; i < half; ++i) f[i] += f[i + half];
  }
  return f[0];
}

[[maybe_unused]] inline simde__m256i emulated_cvtepi32_epi16(simde__m512i v) {
  int32_t from[16];
  int16_t to[16];
  simde_mm512_storeu_si512(from, v);
  for (int i = 0; i < 16; ++i) to[i] = static_cast<int16_t>(from[i]);
  simde__m256i result;
  __builtin_memcpy(&result, to, sizeof result);
  return result;
}

[[maybe_unused]] inline __m128i emulated_cvtusepi32_epi8(simde__m512i v) {
  uint32_t from[16];
  uint8_t to[16];
  simde_mm512_storeu_si512(from, v);
  for (int i = 0; i < 16; ++i) to[i] = static_cast<uint8_t>(from[i] < 255 ? from[i] : 255);
  __m128i result;
  __builtin_memcpy(&result, to, sizeof result);
  return result;
}

// As the processor does: what does not fit is the least number.
[[maybe_unused]] inline simde__m512i emulated_cvtps_epi32(simde__m512 v) {
  float from[16];
  int32_t to[16];
  simde_mm512_storeu_ps(from, v);
  for (int i = 0; i < 16; ++i) {
    to[i] = from[i] >= -0x1p31f && from[i] < 0x1p31f ? static_cast<int32_t>(__builtin_nearbyintf(from[i])) : INT32_MIN;
  }
  return simde_mm512_loadu_si512(to);
}

// Round to nearest even; finite values only.
[[maybe_unused]] inline simde__m256bh emulated_cvtneps_pbh(simde__m512 v) {
  uint32_t from[16];
  uint16_t to[16];
  __builtin_memcpy(from, &v, sizeof from);
  for (int i = 0; i < 16; ++i) to[i] = static_cast<uint16_t>((from[i] + 0x7fff + (from[i] >> 16 & 1)) >> 16);
  simde__m256bh result;
  __builtin_memcpy(&result, to, sizeof result);
  return result;
}

}  // namespace
}  // namespace liif

#define _mm512_reduce_add_ps emulated_reduce_add_ps
#define _mm512_cvtepi32_epi16 emulated_cvtepi32_epi16
#define _mm512_cvtusepi32_epi8 emulated_cvtusepi32_epi8
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#define _mm512_cvtneps_pbh emulated_cvtneps_pbh

// AVX2 for int8, which it multiplies in 16 bits: half as many products in an instruction, and a second one to add them.
#pragma once

#include "floats_avx2.h"
#include "product_simd.h"

namespace liif {
namespace {

struct Int8Words {
  using V = Floats;
  // As instructions see it: of another type GCC would copy sums from register to register.
  typedef int32_t Whole __attribute__((vector_size(32)));
  using Elem = uint16_t;
  using Word = __m256i;
  using Weights = __m256i;
  static constexpr int kPerWord = 2, kRows = 6, kVectors = 2;
  static void store(float* p, __m256 v) { V::store(p, v); }
  static void store(uint16_t* p, __m256 v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(v)); }
  // Eight values of 0 to 255 to the nearest, in 16 bits.
  static __m128i narrow(__m256 v) {
    const __m256i whole = _mm256_cvtps_epi32(v);
    return _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  }
  static float largest(const float* p, int count) {
    __m256 v = V::load(p);
    for (int i = V::kLanes; i < count; i += V::kLanes) v = _mm256_max_ps(v, V::load(p + i));
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
  static Word word(const uint16_t* p) { return _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(p)); }
  static Weights weights(const uint16_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static __m256 floats(Whole sum) { return _mm256_cvtepi32_ps(reinterpret_cast<__m256i>(sum)); }
  static Whole mac(Whole acc, Word x, Weights w) { return acc + reinterpret_cast<Whole>(_mm256_madd_epi16(x, w)); }
};

template <>
struct Sums<Int8Words> : WholeSums<Int8Words> {};

}  // namespace
}  // namespace liif

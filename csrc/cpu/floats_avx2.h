// Vectors of 8 floats for AVX2 and FMA, and products of stored elements; see product_simd.h for what both must have.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "../numbers.h"

namespace liif {
namespace {

struct Floats {
  using Reg = __m256;
  static constexpr int kLanes = 8;
  static Reg load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Reg v) { _mm256_storeu_ps(p, v); }
  static Reg set1(float v) { return _mm256_set1_ps(v); }
  static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm256_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm256_mul_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  static Reg relu(Reg v) { return _mm256_max_ps(_mm256_setzero_ps(), v); }  // NaN stays: the second is returned
  static float sum(Reg v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
};

struct F32 {
  using V = Floats;
  using Elem = float;
  using Word = __m256;
  using Weights = __m256;
  static constexpr int kPerWord = 1, kRows = 6, kVectors = 2;
  static __m256 load(const float* p) { return V::load(p); }
  static void store(float* p, __m256 v) { V::store(p, v); }
  static float value(float v) { return v; }
  static Word word(const float* p) { return _mm256_broadcast_ss(p); }
  static Weights weights(const float* p) { return V::load(p); }
  static __m256 mac(__m256 acc, Word x, Weights w) { return _mm256_fmadd_ps(x, w, acc); }
};

struct Bf16 {
  using V = Floats;
  using Elem = uint16_t;
  static float value(uint16_t v) { return bf16_to_float(v); }
  struct Word {
    __m256 even, odd;
  };
  using Weights = Word;
  static constexpr int kPerWord = 2, kRows = 4, kVectors = 2;
  static __m256 load(const uint16_t* p) {
    const __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
  }
  static void store(float* p, __m256 v) { V::store(p, v); }
  static void store(uint16_t* p, __m256 v) {  // round to nearest even
    const __m256i u = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i r = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
    const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
  }
  static Word split(__m256i v) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(v, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(static_cast<int>(0xffff0000u))))};
  }
  static Word word(const uint16_t* p) {
    return split(_mm256_castps_si256(_mm256_broadcast_ss(reinterpret_cast<const float*>(p))));
  }
  static Weights weights(const uint16_t* p) { return split(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static __m256 mac(__m256 acc, const Word& x, const Weights& w) {
    return _mm256_fmadd_ps(x.odd, w.odd, _mm256_fmadd_ps(x.even, w.even, acc));
  }
};

}  // namespace
}  // namespace liif

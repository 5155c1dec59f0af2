// Vectors of 16 floats for AVX-512, and products of stored elements; see product_simd.h for what both must have.
#pragma once

#ifdef LIIF_EMULATED  // tests run these files on machines without AVX-512 by translating the intrinsics
#include "emulated_avx512.h"
#else
#include <immintrin.h>
#endif

#include <cstdint>

#include "../numbers.h"

namespace liif {
namespace {

struct Floats {
  using Reg = __m512;
  static constexpr int kLanes = 16;
  static Reg load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Reg v) { _mm512_storeu_ps(p, v); }
  static Reg set1(float v) { return _mm512_set1_ps(v); }
  static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static Reg relu(Reg v) { return _mm512_max_ps(_mm512_setzero_ps(), v); }  // NaN stays: the second is returned
  static float sum(Reg v) { return _mm512_reduce_add_ps(v); }
};

// bf16 in memory, f32 in registers.
struct Bf16Storage {
  using V = Floats;
  using Elem = uint16_t;
  static float value(uint16_t v) { return bf16_to_float(v); }
  static __m512 load(const uint16_t* p) {
    // To the upper half of each float in one step.
    const __m512i at =
        _mm512_set_epi16(15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0, 7, 0, 6, 0, 5, 0, 4, 0, 3, 0, 2, 0, 1, 0, 0, 0);
    const __m512i v = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, at, v));
  }
  static void store(float* p, __m512 v) { V::store(p, v); }
  static void store(uint16_t* p, __m512 v) {  // round to nearest even
    const __m512i u = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i r = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(r));
  }
};

struct F32 {
  using V = Floats;
  using Elem = float;
  using Word = __m512;
  using Weights = __m512;
  static constexpr int kPerWord = 1, kRows = 6, kVectors = 4;
  static __m512 load(const float* p) { return V::load(p); }
  static void store(float* p, __m512 v) { V::store(p, v); }
  static float value(float v) { return v; }
  static Word word(const float* p) { return _mm512_set1_ps(*p); }
  static Weights weights(const float* p) { return V::load(p); }
  static __m512 mac(__m512 acc, Word x, Weights w) { return _mm512_fmadd_ps(x, w, acc); }
};

struct Bf16 : Bf16Storage {
  struct Word {
    __m512 even, odd;
  };
  using Weights = Word;
  static constexpr int kPerWord = 2, kRows = 4, kVectors = 4;
  static Word split(__m512i v) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(v, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
  }
  static Word word(const uint16_t* p) { return split(_mm512_set1_epi32(*reinterpret_cast<const int32_t*>(p))); }
  static Weights weights(const uint16_t* p) { return split(_mm512_loadu_si512(p)); }
  static __m512 mac(__m512 acc, const Word& x, const Weights& w) {
    return _mm512_fmadd_ps(x.odd, w.odd, _mm512_fmadd_ps(x.even, w.even, acc));
  }
};

}  // namespace
}  // namespace liif

// AVX-512-VNNI: products of four pairs of bytes summed in 32 bits by one instruction.
#pragma once

#include "floats_avx512.h"
#include "product_simd.h"

namespace liif {
namespace {

struct Int8 {
  using V = Floats;
  // As the instruction sees it: of another type GCC would copy sums from register to register.
  typedef int32_t Whole __attribute__((vector_size(64)));
  using Elem = uint8_t;
  using Word = __m512i;
  using Weights = __m512i;
  static constexpr int kPerWord = 4, kRows = 6, kVectors = 4;
  static void store(float* p, __m512 v) { V::store(p, v); }
  static void store(uint8_t* p, __m512 v) {  // of 0 to 255
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(v)));
  }
  static float largest(const float* p, int count) {
    __m512 v = V::load(p);
    for (int i = V::kLanes; i < count; i += V::kLanes) v = _mm512_max_ps(v, V::load(p + i));
    return _mm512_reduce_max_ps(v);
  }
  static Word word(const uint8_t* p) { return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(p)); }
  static Weights weights(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static __m512 floats(Whole sum) { return _mm512_cvtepi32_ps(reinterpret_cast<__m512i>(sum)); }
  static Whole mac(Whole acc, Word x, Weights w) {
    return reinterpret_cast<Whole>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(acc), x, w));
  }
};

template <>
struct Sums<Int8> : WholeSums<Int8> {};

}  // namespace
}  // namespace liif

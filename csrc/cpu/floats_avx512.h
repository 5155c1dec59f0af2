// Vectors of 16 floats for the AVX-512 decoders.
#pragma once

#ifdef LIIF_EMULATE_AVX512  // tests run these files on machines without AVX-512 by translating the intrinsics
#include "emulated_avx512.h"
#else
#include <immintrin.h>
#endif

#include "decode_simd.h"

namespace liif {
namespace {

struct Floats {
  using Reg = __m512;
  static constexpr int kLanes = 16;
  static Reg load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Reg v) { _mm512_storeu_ps(p, v); }
  static Reg set1(float v) { return _mm512_set1_ps(v); }
  static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static Reg relu(Reg v) { return _mm512_max_ps(v, _mm512_setzero_ps()); }
  static float sum(Reg v) { return _mm512_reduce_add_ps(v); }
};

// bf16 in memory, f32 in registers.
struct Bf16Storage {
  using V = Floats;
  using Elem = uint16_t;
  static __m512 load(const uint16_t* p) {
    const __m512i v = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
  }
  static void store(float* p, __m512 v) { V::store(p, v); }
  static void store(uint16_t* p, __m512 v) {  // round to nearest even
    const __m512i u = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i r = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(r));
  }
};

}  // namespace
}  // namespace liif

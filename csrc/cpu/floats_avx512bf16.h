// AVX-512-BF16: products of bf16 pairs summed in f32 by one instruction.
#pragma once

#include "floats_avx512.h"

namespace liif {
namespace {

struct Bf16Pairs : Bf16Storage {
  using Word = __m512bh;
  using Weights = __m512bh;
  static constexpr int kPerWord = 2, kRows = 6, kVectors = 4;
  using Bf16Storage::store;
  static void store(uint16_t* p, __m512 v) {
    const __m256bh narrow = _mm512_cvtneps_pbh(v);
    __builtin_memcpy(p, &narrow, sizeof narrow);
  }
  static __m512bh pairs(__m512i v) {
    __m512bh bits;
    __builtin_memcpy(&bits, &v, sizeof bits);
    return bits;
  }
  static Word word(const uint16_t* p) { return pairs(_mm512_set1_epi32(*reinterpret_cast<const int32_t*>(p))); }
  static Weights weights(const uint16_t* p) { return pairs(_mm512_loadu_si512(p)); }
  static __m512 mac(__m512 acc, Word x, Weights w) { return _mm512_dpbf16_ps(acc, x, w); }
};

}  // namespace
}  // namespace liif

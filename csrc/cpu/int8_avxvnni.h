// AVX-VNNI: products of four pairs of bytes summed in 32 bits by one instruction.
#pragma once

#include "int8_avx2.h"

#ifdef LIIF_EMULATED  // tests run this file on machines without AVX-VNNI
#include "emulated_avxvnni.h"
#endif

namespace liif {
namespace {

struct Int8 : Int8Words {
  using Elem = uint8_t;
  static constexpr int kPerWord = 4;
  using Int8Words::store;
  static void store(uint8_t* p, __m256 v) {  // of 0 to 255
    const __m128i words = narrow(v);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
  }
  static Word word(const uint8_t* p) { return _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(p)); }
  static Weights weights(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static Whole mac(Whole acc, Word x, Weights w) {
    return reinterpret_cast<Whole>(_mm256_dpbusd_avx_epi32(reinterpret_cast<__m256i>(acc), x, w));
  }
};

template <>
struct Sums<Int8> : WholeSums<Int8> {};

}  // namespace
}  // namespace liif

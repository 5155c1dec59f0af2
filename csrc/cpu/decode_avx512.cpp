// AVX-512 (F, BW, DQ, VL): f32, and bf16 widened to f32.
#include "floats_avx512.h"

namespace liif {
namespace {

struct F32 {
  using V = Floats;
  using Elem = float;
  using Word = __m512;
  using Weights = __m512;
  static constexpr int kPerWord = 1, kRows = 6, kVectors = 4;
  static __m512 load(const float* p) { return V::load(p); }
  static void store(float* p, __m512 v) { V::store(p, v); }
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

void decode_avx512(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  p.type == Type::bf16 ? decode_tiles<Bf16>(p, begin, end, scratch) : decode_tiles<F32>(p, begin, end, scratch);
}

}  // namespace liif

// AVX2 and FMA: f32, bf16 widened to f32 (two products where the hardware has one), and int8 in 16 bits.
#include "decode_int8_simd.h"
#include "int8_avx2.h"

namespace liif {

void decode_avx2(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  if (p.products == Type::i8) return decode_int8<Int8Words, F32, Bf16>(p, begin, end, scratch);
  p.type == Type::bf16 ? decode_tiles<Bf16>(p, begin, end, scratch) : decode_tiles<F32>(p, begin, end, scratch);
}

}  // namespace liif

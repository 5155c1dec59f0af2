// AVX2 and FMA: f32, and bf16 widened to f32 (two products where the hardware has one).
#include "decode_simd.h"
#include "floats_avx2.h"

namespace liif {

void decode_avx2(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  p.type == Type::bf16 ? decode_tiles<Bf16>(p, begin, end, scratch) : decode_tiles<F32>(p, begin, end, scratch);
}

}  // namespace liif

// AVX-512 (F, BW, DQ, VL): f32, and bf16 widened to f32.
#include "decode_simd.h"
#include "floats_avx512.h"

namespace liif {

void decode_avx512(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  p.type == Type::bf16 ? decode_tiles<Bf16>(p, begin, end, scratch) : decode_tiles<F32>(p, begin, end, scratch);
}

}  // namespace liif

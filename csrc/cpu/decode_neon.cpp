// ARM's NEON: f32, and bf16 widened to f32.
#include "decode_simd.h"
#include "floats_neon.h"

namespace liif {

void decode_neon(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  p.type == Type::bf16 ? decode_tiles<Bf16>(p, begin, end, scratch) : decode_tiles<F32>(p, begin, end, scratch);
}

}  // namespace liif

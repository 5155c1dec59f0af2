// ARM's BF16 extension; f32 work goes to the NEON decoder.
#include "decode_simd.h"
#include "floats_neonbf16.h"

namespace liif {

void decode_neonbf16(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  p.type == Type::bf16 ? decode_tiles<Bf16Pairs>(p, begin, end, scratch) : decode_neon(p, begin, end, scratch);
}

}  // namespace liif

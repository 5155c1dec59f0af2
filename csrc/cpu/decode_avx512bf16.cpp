// AVX-512-BF16; f32 work goes to the AVX-512 decoder.
#include "decode_simd.h"
#include "floats_avx512bf16.h"

namespace liif {

void decode_avx512bf16(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  p.type == Type::bf16 ? decode_tiles<Bf16Pairs>(p, begin, end, scratch) : decode_avx512(p, begin, end, scratch);
}

}  // namespace liif

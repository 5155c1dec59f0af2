// AVX-VNNI; all but int8 goes to the AVX2 decoder.
#include "decode_simd.h"
#include "int8_avxvnni.h"

namespace liif {

void decode_avxvnni(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  if (p.products != Type::i8) return decode_avx2(p, begin, end, scratch);
  p.type == Type::bf16 ? decode_tiles<Int8, Bf16>(p, begin, end, scratch) : decode_tiles<Int8, F32>(p, begin, end, scratch);
}

}  // namespace liif

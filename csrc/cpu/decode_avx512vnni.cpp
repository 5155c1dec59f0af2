// AVX-512-VNNI; all but int8 goes to the AVX-512 decoder.
#include "decode_simd.h"
#include "int8_avx512vnni.h"

namespace liif {

void decode_avx512vnni(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  if (p.products != Type::i8) return decode_avx512(p, begin, end, scratch);
  p.type == Type::bf16 ? decode_tiles<Int8, Bf16>(p, begin, end, scratch) : decode_tiles<Int8, F32>(p, begin, end, scratch);
}

}  // namespace liif

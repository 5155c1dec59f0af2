// AVX-VNNI; all but int8 goes to the AVX2 decoder.
#include "decode_int8_simd.h"
#include "int8_avxvnni.h"

namespace liif {

void decode_avxvnni(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  p.products == Type::i8 ? decode_int8<Int8, F32, Bf16>(p, begin, end, scratch) : decode_avx2(p, begin, end, scratch);
}

}  // namespace liif

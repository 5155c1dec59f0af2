// AVX-512-VNNI; all but int8 goes to the AVX-512 decoder.
#include "decode_int8_simd.h"
#include "int8_avx512vnni.h"

namespace liif {

void decode_avx512vnni(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  p.products == Type::i8 ? decode_int8<Int8, F32, Bf16>(p, begin, end, scratch) : decode_avx512(p, begin, end, scratch);
}

}  // namespace liif

// AVX-512-BF16; f32 work goes to AVX-512.
#include "convolve_simd.h"
#include "floats_avx512bf16.h"

namespace liif {

void convolve_avx512bf16(const ConvolveParams& p, int64_t begin, int64_t end) {
  p.type == Type::bf16 ? convolve_rows<Bf16Pairs>(p, begin, end) : convolve_avx512(p, begin, end);
}

}  // namespace liif

// AVX-512-BF16: products of bf16.
#include "floats_avx512bf16.h"
#include "winograd_simd.h"

namespace liif {

void winograd_avx512bf16(const ConvolveParams& p, int64_t begin, int64_t end, const WinogradScratch& scratch) {
  winograd_tiles<Bf16Pairs, Bf16Pairs>(p, begin, end, scratch);
}

}  // namespace liif

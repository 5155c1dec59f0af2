// AVX-512.
#include "floats_avx512.h"
#include "winograd_gradient_simd.h"

namespace liif {

void winograd_avx512(const ConvolveParams& p, int64_t begin, int64_t end, const WinogradScratch& scratch) {
  p.type == Type::bf16 ? winograd_tiles<F32, Bf16>(p, begin, end, scratch) : winograd_tiles<F32, F32>(p, begin, end, scratch);
}

void winograd_gradient_avx512(const ConvolveGradientParams& p, int64_t begin, int64_t end, const WinogradScratch& scratch,
                              float* sum) {
  p.type == Type::bf16 ? winograd_gradient<F32, Bf16>(p, begin, end, scratch, sum)
                       : winograd_gradient<F32, F32>(p, begin, end, scratch, sum);
}

}  // namespace liif

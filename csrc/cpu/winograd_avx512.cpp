// AVX-512.
#include "floats_avx512.h"
#include "winograd_simd.h"

namespace liif {

void winograd_avx512(const ConvolveParams& p, int64_t begin, int64_t end, const WinogradScratch& scratch) {
  winograd_tiles<F32>(p, begin, end, scratch);
}

void winograd_gradient_avx512(const ConvolveGradientParams& p, int64_t begin, int64_t end, const WinogradScratch& scratch,
                              float* sum) {
  winograd_gradient<Floats>(p, begin, end, scratch, sum);
}

}  // namespace liif
